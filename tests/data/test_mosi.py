"""MOSI and MOSEI in the layouts that people have; pickles are read as data; damage is a sentence.

The files are written here, after what the SDK and the models' code read: no real file was at hand.
"""

import datetime
import os
import pickle

import h5py
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import BadRecord
from mmjax.data.sources.mosi import MosiSource, video_of
from mmjax.data.sources.plain_pickle import read_plain_pickle
from mmjax.data.targets import LabelTarget, ValueTarget
from mmjax.data.timeseries import SeriesTransform

SCORES = (-3.0, -1.5, -0.4, 0.0, 0.5, 2.6)
SIZES = {"text": 5, "audio": 3, "vision": 2}
LENGTH = 6


def features(number, length=LENGTH):
    """Returns text, audio and vision of segment `number`: its rows count up, the first number % 3 are padding."""
    found = {}
    for name, size in SIZES.items():
        rows = np.arange(length)[:, None] + 10 * number + np.arange(size) / 8 + 1
        found[name] = np.where(np.arange(length)[:, None] < number % 3, 0, rows).astype(np.float32)
    return found


def split(scores=SCORES, **other):
    """Returns the arrays of a split of MMSA's layout."""
    stacked = {name: np.stack([features(i)[name] for i in range(len(scores))]) for name in SIZES}
    ids = [f"video{i // 2}$_${i}" for i in range(len(scores))]
    return stacked | {"regression_labels": np.array(scores, np.float32), "id": ids} | other


def pickled(path, tree, protocol=4):
    path.write_bytes(pickle.dumps(tree, protocol=protocol))
    return str(path)


def hdf5(path, tree):
    """Writes nested dicts of arrays."""

    def write(group, tree):
        for name, value in tree.items():
            if isinstance(value, dict):
                write(group.create_group(name), value)
            else:
                group[name] = value

    with h5py.File(path, "w") as file:
        write(file, tree)
    return str(path)


@pytest.fixture
def mmsa(tmp_path):
    return pickled(tmp_path / "aligned_50.pkl", {"train": split(raw_text=np.array(list("abcdef"))), "test": split()})


def test_mmsa(mmsa):
    source = MosiSource(mmsa, "train")
    assert len(source) == 6 and source.found == "6 segments of 3 videos"
    assert set(source.columns) == {"text", "audio", "vision", "score", "label", "segment", "video", "caption"}
    for index, score in enumerate(SCORES):
        record = source.read(index)
        for name, expected in features(index).items():
            assert record[name].dtype == np.float32
            np.testing.assert_array_equal(record[name], expected[index % 3 :])
        assert record["score"] == np.float32(score) and record["score"].dtype == np.float32
        assert (record["video"], record["segment"]) == ([f"video{index // 2}"], [f"video{index // 2}$_${index}"])
        assert record["caption"] == ["abcdef"[index]]
    assert source.label(1) == f"{mmsa}:train video0$_$1"
    assert "caption" not in MosiSource(mmsa, "test").columns


@pytest.mark.parametrize(
    ("num_classes", "labels"),
    [
        (7, ["-3", "-2", "0", "0", "0", "3"]),  # halves go to the even number
        (3, ["negative", "negative", "negative", "neutral", "positive", "positive"]),
        (2, ["negative", "negative", "negative", "non-negative", "non-negative", "non-negative"]),
    ],
)
def test_classes(mmsa, num_classes, labels):
    source = MosiSource(mmsa, "train", num_classes=num_classes)
    assert [source.read(i)["label"][0] for i in range(6)] == labels
    assert len(source.classes["label"]) == num_classes and set(labels) <= set(source.classes["label"])


def test_mult(tmp_path):
    """MulT: labels [N, 1, 1], ids of bytes [N, 3], float64, -inf in the audio, Python 2's protocol."""
    tree = split(id=np.array([[f"v{i // 3}".encode(), b"0.1", b"2.5"] for i in range(6)]))
    tree["labels"] = tree.pop("regression_labels").reshape(6, 1, 1)
    tree = {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in tree.items()}
    tree["audio"][1, 3, 1], tree["vision"][1, 4, 0] = -np.inf, np.nan
    for protocol in (0, 1, 2, 3, 4, 5):
        path = pickled(tmp_path / "mosei_senti_data.pkl", {"valid": tree}, protocol)
        record = MosiSource(path, "valid").read(1)
        assert (record["video"], record["segment"], record["score"]) == (["v0"], ["v0$_$0.1_2.5"], -1.5)
        assert np.isnan(record["audio"]).sum() == np.isnan(record["vision"]).sum() == 1
        assert np.isnan(record["audio"][2, 1]) and np.isnan(record["vision"][3, 0]) and record["text"].shape == (5, 5)


def test_arrays_in_hdf5(tmp_path):
    tree = {"train": split(id=np.array([f"video{i // 2}[{i}]".encode() for i in range(6)]))}
    source = MosiSource(hdf5(tmp_path / "mosei.h5", tree), "train")
    np.testing.assert_array_equal(source.read(2)["vision"], features(2)["vision"][2:])
    assert source.read(2)["video"] == ["video1"]


def sequences(change=lambda tree: tree):
    """Returns what the SDK writes: modality -> its data and metadata."""
    names = {"text": "CMU_MOSI_TimestampedWordVectors", "audio": "CMU_MOSI_COVAREP", "vision": "CMU_MOSI_Facet_42"}
    tree = {name: {"data": {}, "metadata": {"root name": name}} for name in (*names.values(), "Opinion_Labels")}
    for i, score in enumerate(SCORES):
        values = {names[name]: value for name, value in features(i).items()} | {"Opinion_Labels": [[score, 9.0]]}
        for name, value in values.items():
            tree[name]["data"][f"v_{i // 2}[{i % 2}]"] = {"features": np.array(value), "intervals": np.zeros((6, 2))}
    del tree["CMU_MOSI_COVAREP"]["data"]["v_2[1]"]  # not every segment has every modality
    return change(tree)


@pytest.mark.parametrize("one_file", [True, False])
def test_computational_sequences(tmp_path, one_file):
    if one_file:
        path = hdf5(tmp_path / "mosi.hdf5", sequences())
    else:
        path = str(tmp_path)
        for name, tree in sequences().items():
            hdf5(tmp_path / f"{name}.csd", {name: tree})
    source = MosiSource(path)
    assert len(source) == 5
    record = source.read(3)
    assert (record["segment"], record["video"], record["score"]) == (["v_1[1]"], ["v_1"], 0.0)
    np.testing.assert_array_equal(record["audio"], features(3)["audio"])
    assert [source.group(i) for i in range(5)] == [0, 1, 2, 3, 4]
    assert [MosiSource(path, group_videos=True).group(i) for i in range(5)] == [0, 0, 1, 1, 2]
    (tmp_path / "fold.txt").write_text("v_1\nv_2\n")
    some = MosiSource(path, videos=str(tmp_path / "fold.txt"), features={"audio": source.mapping["audio"]})
    assert [some.read(i)["segment"][0] for i in range(len(some))] == ["v_1[0]", "v_1[1]", "v_2[0]"]
    with pytest.raises(UserError, match="have no split 'test': give its video ids as `videos`"):
        MosiSource(path, "test")


def test_lengths_that_differ_are_cut_each_for_itself(tmp_path):
    tree = split()
    tree["audio"] = np.concatenate([np.zeros((6, 3, 3), np.float32), tree["audio"]], axis=1)
    record = MosiSource(pickled(tmp_path / "unaligned.pkl", {"train": tree}), "train").read(1)
    assert [len(record[name]) for name in SIZES] == [5, 5, 5]


def test_damaged_segments_are_bad_records(tmp_path):
    tree = split((1.0, np.nan, 4.0, 0.0))
    tree["text"][3] = tree["audio"][3] = tree["vision"][3] = 0
    source = MosiSource(pickled(tmp_path / "a.pkl", {"train": tree}), "train")
    assert source.read(0)["score"] == 1
    for index, kind in ((1, "bad_score"), (2, "bad_score"), (3, "empty_segment")):
        with pytest.raises(BadRecord, match=kind):
            source.read(index)
    tree = split()
    tree["text"] = tree["text"][:, :, 0]
    with pytest.raises(BadRecord, match=r"wrong_shape.*text is float32 \[6\], expected numbers \[T, D\]"):
        MosiSource(pickled(tmp_path / "b.pkl", {"train": tree}), "train").read(0)

    def without(tree):
        del tree["CMU_MOSI_Facet_42"]["data"]["v_0[0]"]["features"]
        return tree

    with pytest.raises(BadRecord, match="broken_hdf5"):
        MosiSource(hdf5(tmp_path / "c.hdf5", sequences(without))).read(0)


def test_odd_arrays_are_sentences_or_bad_records(tmp_path):
    """Well-formed files of what no one expects: refused when opened, or the record alone is bad."""
    ragged = [[[1.0, 2.0], [3.0]], *[[[1.0]]] * 5]
    refused = {
        "expected names, as 'text', found the key 1": {1: 2, 2: 3},
        "text is one int, expected an array": split(text=5),
        "audio is one NoneType, expected an array": split(audio=None),
        "vision is one ndarray, expected an array": split(vision=np.array(5)),
        "id is one int, expected an array": split(id=7),
        r"id 0 is \[\['a'\], \['b', 'c'\]\], expected a name": split(id=[[["a"], ["b", "c"]]] * 6),
        r"id 0 is \[\], expected a name": split(id=[[]] * 6),
    }
    for sentence, tree in refused.items():
        with pytest.raises(UserError, match=sentence):
            MosiSource(pickled(tmp_path / "a.pkl", {"train": tree}), "train")
    with pytest.raises(UserError, match="found the key 5"):
        MosiSource(pickled(tmp_path / "a.pkl", {5: split()}), "train")
    with pytest.raises(UserError, match="text is one Dataset, expected an array"):
        MosiSource(hdf5(tmp_path / "a.h5", {"train": split(text=5)}), "train")
    bad = {
        "wrong_shape.*the rows of text differ in length": split(text=ragged),
        "bad_score.*is no score": split(regression_labels=[10**400] * 6),
        "broken_hdf5.*video0.*text cannot be read: KeyError": split(text=dict.fromkeys("abcdef", 1)),
    }
    for sentence, tree in bad.items():
        source = MosiSource(pickled(tmp_path / "a.pkl", {"train": {"id": tree.pop("id")} | tree}), "train")
        with pytest.raises(BadRecord, match=sentence):
            source.read(0)
    segments = {"u[0]": {"intervals": 1}, "v[0]": np.zeros((6, 2))}
    path = pickled(tmp_path / "a.pkl", dict.fromkeys(("glove", "covarep", "facet", "opinion"), segments))
    for index, sentence in enumerate(
        (r"u\[0\]: score cannot be read: KeyError", r"v\[0\]: score cannot be read: Index")
    ):
        with pytest.raises(BadRecord, match=rf"broken_hdf5.*{sentence}"):
            MosiSource(path).read(index)


@pytest.mark.parametrize("layout", ["arrays", "sequences"])
def test_random_damage_of_hdf5_is_a_sentence_or_harmless(tmp_path, layout):
    tree = {"train": split()} if layout == "arrays" else sequences()
    path, name = tmp_path / "a.h5", "train" if layout == "arrays" else None
    hdf5(path, tree)
    data, rng, found = path.read_bytes(), np.random.default_rng(0), []
    for number in range(200):
        changed = bytearray(data)
        start, size = rng.integers(len(data)), (1, 30)[number % 2]
        changed[start : start + size] = rng.bytes(len(changed[start : start + size]))
        (tmp_path / f"{number}.h5").write_bytes(changed[: rng.integers(len(data))] if number % 10 == 0 else changed)
        try:
            source = MosiSource(str(tmp_path / f"{number}.h5"), name)
            for i in range(len(source)):
                source.read(i)
        except (UserError, BadRecord) as error:
            found.append(str(error))
    assert 20 < len(found) < 200 and any("is damaged, or no file of aligned features" in error for error in found)


def test_batches(mmsa):
    transforms = {
        name: SeriesTransform(name, LENGTH, tuple(f"{name}{i}" for i in range(size))) for name, size in SIZES.items()
    }
    source = MosiSource(mmsa, "train", num_classes=3, group_videos=True)
    targets = {"score": ValueTarget(), "label": LabelTarget(classes=source.classes["label"])}
    (batch,) = Pipeline(source, transforms, 6, targets=targets).eval_batches()
    np.testing.assert_array_equal(batch.targets["score"], np.float32(SCORES))
    np.testing.assert_array_equal(batch.targets["label"], [0, 0, 0, 1, 2, 2])
    np.testing.assert_array_equal(batch.group, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(batch.streams["text"].mask.sum(axis=1), [6, 5, 4, 6, 5, 4])


def test_mistakes_are_sentences(mmsa, tmp_path):
    cases = [
        (lambda: MosiSource(mmsa, "trian"), "has no split 'trian'. Did you mean 'train'"),
        (lambda: MosiSource(mmsa), "needs the name of a split.*It has train, test"),
        (lambda: MosiSource(mmsa, "train", num_classes=5), "num_classes: '5' is unknown"),
        (lambda: MosiSource(mmsa, "train", features={"audio": "adio"}), "no 'adio' for 'audio'. Did you mean 'audio'"),
        (
            lambda: MosiSource(mmsa, "train", features={"sound": "audio"}),
            "features has sound; its keys are text, audio",
        ),
        (lambda: MosiSource(mmsa, "train", videos="nowhere.txt"), "nowhere.txt cannot be read"),
        (lambda: MosiSource(str(tmp_path / "no.pkl"), "train"), "there is no such file"),
        (lambda: MosiSource(pickled(tmp_path / "l.pkl", [1, 2]), "train"), "by name, found list"),
    ]
    tree = split()
    del tree["vision"]
    tree["id"] = tree["id"][:3]
    cases += [
        (lambda: MosiSource(pickled(tmp_path / "v.pkl", {"a": tree}), "a"), "nothing that looks like 'vision'"),
        (lambda: MosiSource(pickled(tmp_path / "i.pkl", {"a": split(id=["x"])}), "a"), "6 of text.* 1 of id"),
    ]
    for make, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            make()
    (tmp_path / "x.csd").write_bytes(b"\x89HDF\r\n\x1a\nrest")
    with pytest.raises(UserError, match="no HDF5 file, or a damaged one"):
        MosiSource(str(tmp_path / "x.csd"))


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("echo > hacked",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_never_runs_code(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    path = pickled(tmp_path / "evil.pkl", {"train": split(id=Evil())}, protocol)
    with pytest.raises(UserError, match=r"a pickle may run any code.*but it asks for (posix|nt)\.system"):
        MosiSource(path, "train")
    assert not (tmp_path / "hacked").exists()
    pickle.loads(pickle.dumps(Evil()))  # the test can fail: this is what would have happened
    assert (tmp_path / "hacked").exists()


def test_other_objects_are_refused(tmp_path):
    kinds = {
        "step EMPTY_SET": pickle.dumps({1}),
        "asks for builtins.complex": pickle.dumps(1j),
        "asks for datetime.date": pickle.dumps(datetime.date(2016, 1, 1)),
        "asks for builtins.getattr": b"cbuiltins\ngetattr\n(S'a'\nS'b'\ntR.",
        "calls what it made itself": b"(S'a'\nS'b'\ntS'c'\n\x85R.",
        "of the type 'V8'": pickle.dumps(np.zeros(2, [("a", "i4"), ("b", "i4")])),
        r"of the shape \(-1, -8\)": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I-1\nI-8\ntcnumpy\ndtype\n(S'i1'\ntRI00\nC\x08aaaaaaaatb.",
    }
    for sentence, data in kinds.items():
        (tmp_path / "a.pkl").write_bytes(data)
        with pytest.raises(UserError, match=sentence):
            read_plain_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize(("shape", "values"), [(50, []), (3, [1, 2]), (1, [1, 2]), (10**8, [1]), (0, [1]), (2**62, [])])
def test_an_array_of_objects_has_as_many_as_its_shape_says(tmp_path, shape, values):
    """numpy itself reads past the end of the list."""

    class Crafted:
        def __reduce__(self):
            build = np.array([], object).__reduce__()[0]
            return build, (np.ndarray, (0,), b"b"), (1, (shape,), np.dtype(object), False, values)

    with pytest.raises(UserError, match="it holds an array of the shape"):
        read_plain_pickle(pickled(tmp_path / "a.pkl", Crafted(), 2))


@pytest.mark.parametrize(
    ("shape", "kind", "data"), [((10**12,), "S0", b""), ((0, 2**62, 2**62), "i1", b""), ((3,), "i4", b"12345678")]
)
def test_an_array_of_bytes_has_as_many_as_its_shape_says(tmp_path, shape, kind, data):
    class Crafted:
        def __reduce__(self):
            build = np.array([], object).__reduce__()[0]
            return build, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(kind), False, data)

    with pytest.raises(UserError, match="it holds an array of the shape"):
        read_plain_pickle(pickled(tmp_path / "a.pkl", Crafted(), 2))


def test_arrays_of_objects_are_read_in_every_shape(tmp_path):
    for array in (np.array([["a", 1], [None, 2.5]], object), np.zeros((0, 3), object), np.array(7, object)):
        found = read_plain_pickle(pickled(tmp_path / "a.pkl", array))
        assert found.shape == array.shape and found.tolist() == array.tolist()


def test_damaged_pickles_are_sentences(tmp_path):
    """Cut short or with a byte changed: a value or a sentence, never another error."""
    data = pickle.dumps({"train": split(), "id": np.array([["a", 1]], object)})
    rng = np.random.default_rng(0)
    path = tmp_path / "a.pkl"
    for size in (0, 1, 30, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(UserError, match="no pickle, or a damaged one"):
            read_plain_pickle(path)
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        changed[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(changed)
        try:
            read_plain_pickle(path)
        except UserError:
            refused += 1
    assert 0 < refused < 300


def test_video_of():
    assert [video_of(name) for name in ("a_b[12]", "a$_$3", "-x$_$0.1_2", "7")] == ["a_b", "a", "-x", "7"]
