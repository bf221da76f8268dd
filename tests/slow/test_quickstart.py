"""The README's first command reaches the retrieval it promises."""

import json
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]


def test_held_out_retrieval(tmp_path):
    command = [sys.executable, "train.py", "--config", "configs/openmoji.py", "--workdir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["retrieval/mean_recall_at_1"] >= 0.60
    assert results["retrieval/mean_recall_at_5"] >= 0.73
    assert (tmp_path / "retrieval.png").stat().st_size > 10_000
