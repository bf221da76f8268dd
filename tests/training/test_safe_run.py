"""What a run leaves in its folder and says: nobody else can write it, no credentials; a clock may jump, a disk fill."""

import errno
import io
import json
import os
import random
import stat
import time

import fiddle as fdl
import jax
import numpy as np
import pytest
from rich.console import Console

from mmjax.core.errors import UserError
from mmjax.data.tf import tf
from mmjax.training.checkpoint import Checkpoints, Keep
from mmjax.training.loop import fit
from mmjax.training.metrics import MetricWriter
from tests.training.test_faults import flip_value
from tests.training.tiny import tiny_config


def train(workdir, **settings) -> str:
    console = Console(file=io.StringIO(), width=200)
    fit(tiny_config(evaluations={}, **settings), workdir, console)
    return console.file.getvalue()


def test_files_are_the_owners_to_write_and_hold_no_credentials(tmp_path):
    config = tiny_config(duration=2, evaluations={})
    config.data.source.name = "https://user:s3cret@host/a.tar?X-Amz-Signature=s3cret"
    console = Console(file=io.StringIO(), width=200)
    before = os.umask(0o007)
    try:
        fit(config, tmp_path / "run", console)
        assert os.umask(0o007) == 0o007
    finally:
        os.umask(before)
    paths = [tmp_path / "run", *(tmp_path / "run").rglob("*")]
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path
        assert path.is_dir() or b"s3cret" not in path.read_bytes(), path
    assert "***@host/a.tar" in console.file.getvalue() and "s3cret" not in console.file.getvalue()
    assert "***@host/a.tar" in (tmp_path / "run" / "config.json").read_text()


class Jumping:
    """A clock that jumps back and forth by up to some hours at each look."""

    def __init__(self, clock, seed: int):
        self._clock, self._random = clock, random.Random(seed)

    def __call__(self) -> float:
        return self._clock() + self._random.uniform(-4, 4) * 3600


def test_a_clock_that_jumps_changes_nothing_but_the_rates(tmp_path, monkeypatch):
    keep = fdl.Config(Keep, every=2, last=2)
    train(tmp_path / "steady", duration=8, keep=keep)
    nanoseconds = Jumping(time.time, 3)
    monkeypatch.setattr(time, "time", Jumping(time.time, 1))
    monkeypatch.setattr(time, "monotonic", Jumping(time.monotonic, 2))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * nanoseconds()))
    saved, original = [], Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, state, *rest: saved.append(int(state.step)) or original(self, state, *rest)
    )
    output = train(tmp_path / "jumping", duration=8, keep=keep)
    monkeypatch.undo()
    assert saved == [2, 4, 6, 8] and Checkpoints(tmp_path / "jumping").steps() == [6, 8]
    records = [json.loads(line) for line in (tmp_path / "jumping" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert all(record["examples_per_second"] >= 0 and 0 <= record["input_wait_share"] <= 1 for record in records)
    assert "ETA -" not in output
    params = [Checkpoints(tmp_path / name).restore_params() for name in ("steady", "jumping")]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_metrics_that_the_disk_refuses_stop_the_run_with_a_sentence(tmp_path, monkeypatch):
    original = MetricWriter.write

    def full(self, step, metrics):
        if step >= 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, step, metrics)

    monkeypatch.setattr(MetricWriter, "write", full)
    with pytest.raises(
        UserError, match=r"cannot be written \(No space left on device\).*checkpoint is step 2; the same"
    ):
        train(tmp_path)
    monkeypatch.undo()
    assert Checkpoints(tmp_path).newest_whole() == 2
    train(tmp_path)


def test_tensorboard_on_a_full_disk_is_an_error_of_the_disk(tmp_path, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    writer = MetricWriter(tmp_path, 0)
    monkeypatch.setattr(tf.summary, "scalar", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        writer.write(1, {"loss": 1.0})
    assert error.value.errno == errno.ENOSPC
    writer.close()


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before_and_ends_the_same(tmp_path):
    train(tmp_path, duration=4)
    expected = Checkpoints(tmp_path).restore_params()
    flip_value(tmp_path, 4)
    output = train(tmp_path, duration=4)
    assert "4 is damaged and is not used: state/" in output and "resumed everything from step 2" in output
    found = Checkpoints(tmp_path, tell=pytest.fail)
    assert found.newest_whole() == 4
    jax.tree.map(np.testing.assert_array_equal, expected, found.restore_params())
