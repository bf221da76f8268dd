"""Any source as ArrayRecord shards: written by processes or by Beam, read by the reader that there is."""

import importlib.util
import logging
import os
import stat
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data import export
from mmjax.data.source import BadRecord
from mmjax.data.sources import ManifestSource, TfdsSource
from tests.devices import ROOT


@pytest.fixture
def manifest(tmp_path):
    """Ten pictures, the fourth of which is missing, with one or two captions."""
    rows = ["image,caption"]
    for number in range(10):
        picture = np.full((8, 8, 3), 20 * number, np.uint8)
        ending = "png" if number % 2 else "jpg"
        if number != 3:
            cv2.imwrite(str(tmp_path / f"{number}.{ending}"), picture)
        rows += [f"{number}.{ending},caption {number}"] + [f"{number}.{ending},second {number}"] * (number == 5)
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    return str(tmp_path / "all.csv")


def good(source) -> list[dict]:
    found = []
    for index in range(len(source)):
        try:
            found.append(source.read(index))
        except BadRecord:
            continue
    return found


def test_shards_hold_the_records_in_order_whatever_writes_them(manifest, tmp_path, caplog):
    out = tmp_path / "out" / "1.0.0"
    with caplog.at_level(logging.WARNING):
        export.export(manifest, str(out), 3, processes=1)
    assert "1 damaged records were left out: {'missing_image': 1}" in caplog.text
    assert sorted(path.name for path in out.glob("*array_record*")) == [
        f"records-train.array_record-0000{shard}-of-00003" for shard in range(3)
    ]
    assert good(TfdsSource(str(out))) == good(ManifestSource(manifest))
    again = tmp_path / "again" / "1.0.0"
    again.mkdir(parents=True)
    written = [export.write_shard(shard, data=manifest, out=str(again), num_shards=3) for shard in (2, 0, 1)]
    export.finish(written, data=manifest, out=str(again))
    assert good(TfdsSource(str(again))) == good(TfdsSource(str(out)))
    assert [each.records for each in written] == [4, 3, 2]


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="Apache Beam is not installed: extra 'beam'"
)
def test_beam_writes_what_processes_write(manifest, tmp_path):
    out = tmp_path / "beam" / "1.0.0"
    command = [sys.executable, "-m", "mmjax.data.export", manifest, str(out), "--num-shards", "3"]
    done = subprocess.run([*command, "--runner", "DirectRunner"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert good(TfdsSource(str(out))) == good(ManifestSource(manifest))


def test_only_the_owner_may_change_what_is_exported(manifest, tmp_path):
    given = os.umask(0)
    try:
        out = tmp_path / "out" / "1.0.0"
        export.export(manifest, str(out), 1, processes=1)
    finally:
        os.umask(given)
    for path in (out, *out.iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o022, path


def test_credentials_in_the_name_of_data_are_in_no_log(tmp_path, caplog):
    written = [export.Written(0, 0, 0, {"missing_image": 2})]
    with pytest.raises(UserError, match="not one record") as error, caplog.at_level(logging.WARNING):
        export.finish(written, data="https://user:s3cret@host/a.csv", out=str(tmp_path))
    assert "https://***@host/a.csv: 2 damaged records" in caplog.text
    assert "s3cret" not in caplog.text + str(error.value)


TRACEBACK = """Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1498, in process
mmjax.core.errors.UserError: a.csv:3: another type than in the first record: 'x'

During handling of the above exception, another exception occurred:

mmjax.core.errors.UserError: a.csv:3: another type than in the first record: 'x' [while running 'Map(write)']
"""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError(TRACEBACK), "a.csv:3: another type than in the first record: 'x'"),
        (UserError("no record [while running 'Map(done)']"), "no record"),
        (RuntimeError("Pipeline failed: out of memory"), None),
    ],
)
def test_a_mistake_that_a_beam_worker_finds_is_a_sentence(monkeypatch, error, sentence):
    class Pipeline:
        def __init__(self, options):
            raise error

    options = types.SimpleNamespace(PipelineOptions=list)
    modules = {"apache_beam": types.SimpleNamespace(Pipeline=Pipeline), "apache_beam.options.pipeline_options": options}
    monkeypatch.setattr(export, "optional", lambda name, *_: modules[name])
    with pytest.raises(UserError if sentence else RuntimeError) as found:
        export.by_beam(None, None, 1, [])
    assert str(found.value) == (sentence or str(error))


def test_mistakes_are_sentences(manifest, tmp_path, monkeypatch):
    out = str(tmp_path / "out")
    with pytest.raises(UserError, match="has 10 records, fewer than 11 shards"):
        export.export(manifest, out, 11, processes=1)
    with pytest.raises(UserError, match="does not exist"):
        export.export(str(tmp_path / "nowhere.csv"), out, 1, processes=1)
    with pytest.raises(UserError, match="num_shards"):
        export.export(manifest, out, 0, processes=1)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'mmjax\[beam\]'"):
        export.export(manifest, out, 1)
    export.export(manifest, out, 1, processes=1)
    with pytest.raises(UserError, match="there is a data set already"):
        export.export(manifest, out, 1, processes=1)
