"""kill -9 at random moments: the restarted run takes the same steps to the bit."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mmjax.core.trees import flatten
from mmjax.training.checkpoint import Checkpoints

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]
STEPS = 120


def command(workdir: pathlib.Path) -> list[str]:
    settings = [f"duration={STEPS}", "keep.every=7", "evaluate_every=50"]
    config = ["--config", "configs/openmoji.py:smoke", "--workdir", str(workdir)]
    return [sys.executable, "train.py", *config, *(f"--set={setting}" for setting in settings)]


def losses(workdir: pathlib.Path) -> dict[int, float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines() if (workdir / "metrics.jsonl").exists() else []
    found = {}
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line that the kill cut short
            continue
        if "loss" in record:
            found[record["step"]] = record["loss"]
    return found


def test_three_kills_change_nothing(tmp_path):
    subprocess.run(command(tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    killed = tmp_path / "killed"
    rng = random.Random(int(os.environ.get("MMJAX_SEED", "0")))
    moments = sorted(rng.sample(range(5, STEPS - 5), 3))
    for moment in moments:
        process = subprocess.Popen(command(killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while max(losses(killed), default=0) < moment:
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.02)
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(command(killed), cwd=ROOT, check=True, capture_output=True, text=True)
    assert "resumed everything from step" in done.stdout
    assert losses(killed) == losses(tmp_path / "whole") and len(losses(killed)) == STEPS
    expected = flatten(Checkpoints(tmp_path / "whole").restore_params())
    for name, leaf in flatten(Checkpoints(killed).restore_params()).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)
