"""Copies of the data set as tar shards, a manifest and a folder train through --data; damage is met as it should be."""

import json
import pathlib
import subprocess
import sys

import pytest

from mmjax.data.datasets.openmoji import OpenMojiSource
from tests.data.make_copies import write_folder, write_manifest, write_shards

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
WRITERS = {"shards": write_shards, "manifest": write_manifest, "folder": write_folder}


def train(workdir: pathlib.Path, spec: str, *settings: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "train.py", "--config", "configs/openmoji.py:smoke", "--workdir", str(workdir)]
    command += ["--data", spec, *(f"--set={setting}" for setting in settings)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_copy_trains_with_nothing_else_changed(tmp_path, kind):
    copy = WRITERS[kind](OpenMojiSource("train"), tmp_path / "copy")
    done = train(tmp_path / "run", copy.spec)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "retrieval.png").exists()


@pytest.mark.parametrize("kind", WRITERS)
def test_three_percent_of_damage_stops_at_one_percent_and_is_counted_at_five(tmp_path, kind):
    copy = WRITERS[kind](OpenMojiSource("train"), tmp_path / "copy", share=0.03)
    stopped = train(tmp_path / "stopped", copy.spec, "duration='1 epochs'")
    assert stopped.returncode == 2 and "Traceback" not in stopped.stderr
    assert "bad" in stopped.stderr and "max_bad_share" in stopped.stderr
    done = train(tmp_path / "done", copy.spec, "duration='1 epochs'", "data.max_bad_share=0.05")
    assert done.returncode == 0, done.stderr
    records = map(json.loads, (tmp_path / "done" / "metrics.jsonl").read_text().splitlines())
    last = [record for record in records if "loss" in record][-1]
    counts = {name.removeprefix("bad_records/"): value for name, value in last.items() if name.startswith("bad_rec")}
    assert counts == copy.planted
    named = (tmp_path / "done" / "bad_records_0.jsonl").read_text().splitlines()
    assert len(named) == sum(copy.planted.values())
