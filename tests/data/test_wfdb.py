"""WFDB records: physical units, gaps, labels, and every kind of damage."""

import pathlib
import sys

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.source import BadRecord
from mmjax.data.sources.wfdb import WfdbSource
from mmjax.data.timeseries import SeriesTransform

wfdb = pytest.importorskip("wfdb")
SIGNAL = np.random.default_rng(0).normal(size=(400, 2))
SIGNAL[10:20, 1] = np.nan


def write(folder: pathlib.Path, name: str = "a", comments: tuple[str, ...] = ("Age: 61", "Dx: 426177001,164934002")):
    folder.mkdir(parents=True, exist_ok=True)
    wfdb.wrsamp(
        name,
        fs=250,
        units=["mV", "uV"],
        sig_name=["I", "V1"],
        p_signal=SIGNAL,
        fmt=["16", "16"],
        comments=list(comments),
        write_dir=str(folder),
    )


def test_physical_units_gaps_and_metadata(tmp_path):
    write(tmp_path)
    source = WfdbSource(str(tmp_path), comment="Dx")
    record = source.read(0)
    assert set(record) == set(source.columns)
    np.testing.assert_allclose(record["ecg"], SIGNAL, atol=2e-4)  # 16 bits over a range of some 6 units
    assert record["ecg"].dtype == np.float32 and np.isnan(record["ecg"][10:20, 1]).all()
    assert record["sampling_rate"] == 250.0
    assert record["channels"] == ["I", "V1"] and record["units"] == ["mV", "uV"]
    assert record["label"] == ["426177001", "164934002"] and record["comments"][0] == "Age: 61"
    assert source.label(0) == str(tmp_path / "a")


def test_a_record_goes_through_the_transform(tmp_path):
    write(tmp_path)
    transform = SeriesTransform(
        "ecg",
        length=100,
        channels=("II", "I", "V1"),
        sampling_rate=125.0,
        rate_column="sampling_rate",
        channels_column="channels",
    )
    window = transform.prepare(WfdbSource(str(tmp_path)).read(0), None)
    assert window.shape == (100, 3) and np.isnan(window[:, 0]).all() and not np.isnan(window[:, 1:]).any()


def test_folders_below_and_records_files(tmp_path):
    for name in ("b/two", "a/one", "c/three"):
        write(tmp_path / name.split("/")[0], name.split("/")[1])
    assert [WfdbSource(str(tmp_path)).label(i) for i in range(3)] == [
        str(tmp_path / name) for name in ("a/one", "b/two", "c/three")
    ]
    (tmp_path / "RECORDS").write_text("c/three\na/one\n\n")
    for path in (tmp_path, tmp_path / "RECORDS"):
        source = WfdbSource(str(path))
        assert [source.label(i) for i in range(len(source))] == [str(tmp_path / "c/three"), str(tmp_path / "a/one")]
        assert source.read(1)["channels"] == ["I", "V1"]


def test_the_label_is_the_rhythm_that_lasts_longest(tmp_path):
    write(tmp_path)
    notes = ["(N\0", "", "(AFIB\0", "(N\0"]
    wfdb.wrann("a", "atr", np.array([0, 50, 100, 350]), ["+", "N", "+", "+"], aux_note=notes, write_dir=str(tmp_path))
    source = WfdbSource(str(tmp_path), annotator="atr")
    assert source.read(0)["label"] == ["AFIB"]
    wfdb.wrann("a", "atr", np.array([50]), ["N"], write_dir=str(tmp_path))
    assert source.read(0)["label"] == []
    (tmp_path / "a.atr").unlink()
    with pytest.raises(BadRecord, match="missing_file"):
        source.read(0)


def test_several_samples_a_frame_and_skew_have_the_checksum_of_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    written = [rng.integers(-1000, 1000, 100), rng.integers(-1000, 1000, 400)]
    wfdb.wrsamp(
        "a",
        fs=100,
        units=["mV", "mV"],
        sig_name=["I", "II"],
        e_d_signal=written,
        samps_per_frame=[1, 4],
        fmt=["16", "16"],
        adc_gain=[200.0, 200.0],
        baseline=[0, 0],
        write_dir=str(tmp_path),
    )
    source = WfdbSource(str(tmp_path))
    signals = source.read(0)["ecg"]
    np.testing.assert_allclose(signals[:, 0], written[0] / 200, atol=1e-6)
    np.testing.assert_allclose(signals[:, 1], written[1].reshape(100, 4).mean(axis=1) / 200, atol=0.004)
    data = bytearray((tmp_path / "a.dat").read_bytes())
    data[100] ^= 1
    (tmp_path / "a.dat").write_bytes(bytes(data))
    with pytest.raises(BadRecord, match="wrong_checksum"):
        source.read(0)
    write(tmp_path / "skewed")
    plain = WfdbSource(str(tmp_path / "skewed")).read(0)["ecg"]
    header = tmp_path / "skewed/a.hea"
    header.write_text(header.read_text().replace("a.dat 16 ", "a.dat 16:5 ", 1))
    skewed = WfdbSource(str(tmp_path / "skewed")).read(0)["ecg"]
    np.testing.assert_array_equal(skewed[:-5, 0], plain[5:, 0])
    assert np.isnan(skewed[-5:, 0]).all()


def test_segments_are_read_within_their_record_alone(tmp_path):
    for name in ("x", "y", "alone"):
        write(tmp_path / "b", name)
    (tmp_path / "b/whole.hea").write_text("# one\n\nwhole/2 2 250 800\nx 400\ny 400\n")
    (tmp_path / "b/empty.hea").write_text("")
    source = WfdbSource(str(tmp_path))
    labels = [source.label(i) for i in range(len(source))]
    assert labels == [str(tmp_path / "b" / name) for name in ("alone", "empty", "whole")]
    np.testing.assert_allclose(source.read(2)["ecg"], np.concatenate([SIGNAL, SIGNAL]), atol=2e-4)


def test_segments_keep_their_own_units(tmp_path):
    small, large = SIGNAL[:, :1], 50 * SIGNAL[:, :1]
    for name, signal in (("x", small), ("y", large)):
        wfdb.wrsamp(name, fs=100, units=["mV"], sig_name=["I"], p_signal=signal, fmt=["16"], write_dir=str(tmp_path))
    (tmp_path / "layout.hea").write_text("layout 1 100 0\n~ 0 200 16 0 0 0 0 I\n")
    (tmp_path / "fixed.hea").write_text("fixed/2 1 100 800\nx 400\ny 400\n")
    (tmp_path / "varied.hea").write_text("varied/4 1 100 900\nlayout 0\nx 400\n~ 100\ny 400\n")
    source = WfdbSource(str(tmp_path))
    fixed, varied = (source.read(i)["ecg"] for i in range(2))
    np.testing.assert_allclose(fixed, np.concatenate([small, large]), atol=1e-2)
    np.testing.assert_allclose(varied, np.concatenate([small, np.full((100, 1), np.nan), large]), atol=1e-2)


@pytest.mark.parametrize(
    "header",
    [
        "a 2 250 {}\na.dat 16 200 16 0 0 0 0 I\na.dat 16 200 16 0 0 0 0 V1\n",
        "a 2 250 {}\n~ 0 200 16 0 0 0 0 I\n~ 0 200 16 0 0 0 0 V1\n",
        "a 1 250 400\na.dat 16x{} 200 16 0 0 0 0 I\n",
        "a 1 250 400\na.dat 16:{} 200 16 0 0 0 0 I\n",
        "a {} 250\na.dat 16 200 16 0 0 0 0 I\n",
        "a/2 2 250 {}\nb 400\n~ {}\n",
        "a/{} 2 250 400\nb 400\n",
    ],
)
@pytest.mark.parametrize("count", [10**8, 10**12])
def test_a_header_that_claims_more_than_its_files_hold_costs_no_memory(tmp_path, monkeypatch, header, count):
    write(tmp_path)
    write(tmp_path, "b")
    (tmp_path / "a.hea").write_text(header.replace("{}", str(count)))
    (tmp_path / "RECORDS").write_text("a\n")
    monkeypatch.setattr(wfdb, "rdrecord", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(
        BadRecord, match=r"broken_wfdb.*its header claims [\d,]+ samples, but its signals are [\d,]+ bytes"
    ):
        WfdbSource(str(tmp_path)).read(0)


def test_a_record_that_memory_does_not_hold_is_a_bad_record(tmp_path, monkeypatch):
    def too_much(*_, **__):
        raise MemoryError

    write(tmp_path)
    monkeypatch.setattr(wfdb, "rdrecord", too_much)
    with pytest.raises(BadRecord, match=r"broken_wfdb.*MemoryError"):
        WfdbSource(str(tmp_path)).read(0)


@pytest.mark.parametrize(
    ("kind", "ending", "damage"),
    [
        ("broken_wfdb", "dat", lambda data: data[:-4]),
        ("broken_wfdb", "dat", lambda data: data[:-3]),
        ("broken_wfdb", "dat", lambda data: b""),
        ("wrong_checksum", "dat", lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]),
        ("broken_wfdb", "hea", lambda data: data[:20]),
        ("broken_wfdb", "hea", lambda data: b""),
        ("broken_wfdb", "hea", lambda data: bytes(range(256))),
        ("broken_wfdb", "hea", lambda data: data.replace(b"400", b"500")),
        ("missing_file", "hea", lambda data: data.replace(b"a.dat", b"b.dat")),
    ],
)
def test_damage_is_a_bad_record(tmp_path, kind, ending, damage):
    write(tmp_path)
    path = tmp_path / f"a.{ending}"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadRecord) as caught:
        WfdbSource(str(tmp_path)).read(0)
    assert caught.value.kind == kind and str(tmp_path) in caught.value.detail


def test_random_damage_is_found_or_harmless(tmp_path):
    write(tmp_path)
    rng, source = np.random.default_rng(0), WfdbSource(str(tmp_path))
    good = {ending: (tmp_path / f"a.{ending}").read_bytes() for ending in ("hea", "dat")}
    found = []
    for number in range(60):
        ending = ("hea", "dat")[number % 2]
        data = bytearray(good[ending])
        data[rng.integers(len(data))] = rng.integers(256)
        (tmp_path / f"a.{ending}").write_bytes(bytes(data))
        try:
            assert source.read(0)["ecg"].shape[1] == 2
        except BadRecord as error:
            found.append(error.kind)
        (tmp_path / f"a.{ending}").write_bytes(good[ending])
    assert found.count("wrong_checksum") > 25 and "broken_wfdb" in found


def test_a_wrong_checksum_may_be_let_pass(tmp_path):
    write(tmp_path)
    data = bytearray((tmp_path / "a.dat").read_bytes())
    data[100] ^= 1
    (tmp_path / "a.dat").write_bytes(bytes(data))
    assert WfdbSource(str(tmp_path), verify=False).read(0)["ecg"].shape == (400, 2)


def test_nothing_there_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no WFDB header"):
        WfdbSource(str(tmp_path))
    with pytest.raises(UserError, match="neither a folder nor a RECORDS file"):
        WfdbSource(str(tmp_path / "RECORD"))
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(UserError, match=r"pip install 'mmjax\[data\]'"):
        WfdbSource(str(tmp_path))
