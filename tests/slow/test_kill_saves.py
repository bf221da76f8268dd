"""kill -9 in the middle of asynchronous saves, twenty times: no checkpoint is ever damaged, and nothing changes."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mmjax.training.checkpoint import Checkpoints
from tests.devices import ROOT, device_env

pytestmark = pytest.mark.slow
KILLS = 20
STEPS = 3 * KILLS

RUN = f"""
import sys
import fiddle as fdl
from mmjax.training.checkpoint import Keep
from mmjax.training.loop import fit
from tests.training.tiny import tiny_config
fit(tiny_config(duration={STEPS}, evaluations={{}}, keep=fdl.Config(Keep, every=1, last=2)), sys.argv[1])
"""


def job(workdir: pathlib.Path, cache: pathlib.Path) -> subprocess.Popen:
    env = device_env(1) | {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    output = (workdir.parent / f"{workdir.name}.txt").open("a")
    return subprocess.Popen([sys.executable, "-c", RUN, str(workdir)], cwd=ROOT, env=env, stdout=output, stderr=output)


def newest(folder: pathlib.Path) -> int:
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return max(steps, default=0)


def wait_for_a_save(process: subprocess.Popen, folder: pathlib.Path, after: int) -> None:
    """Returns while a checkpoint newer than after is being written."""
    begin = time.monotonic()
    while newest(folder) <= after or not list(folder.glob("*-tmp")):
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() - begin < 300, "the run takes no steps"
        time.sleep(0.001)


def test_twenty_kills_in_the_middle_of_saves_change_nothing(tmp_path):
    rng = random.Random(int(os.environ.get("MMJAX_SEED", "0")))
    whole, killed, cache = tmp_path / "whole", tmp_path / "killed", tmp_path / "cache"
    assert job(whole, cache).wait() == 0
    for _ in range(KILLS):
        before = newest(killed / "checkpoints")
        process = job(killed, cache)
        wait_for_a_save(process, killed / "checkpoints", before)
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = Checkpoints(killed, tell=pytest.fail)
        assert found.newest_whole() > before
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.restore_params()))
        found.close()
    assert job(killed, cache).wait() == 0, (tmp_path / "killed.txt").read_text()
    params = [Checkpoints(workdir).restore_params(STEPS) for workdir in (whole, killed)]
    jax.tree.map(np.testing.assert_array_equal, *params)
    said = (tmp_path / "killed.txt").read_text()
    assert said.count("resumed everything from step") == KILLS and "damaged" not in said and "in use" not in said
