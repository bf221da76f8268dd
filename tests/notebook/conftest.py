"""Runs of a few steps of the smoke sizes, shared by the tests of this folder."""

import pathlib

import fiddle as fdl
import pytest

from mmjax.core.config import load_config
from mmjax.core.override import override
from mmjax.evaluation.attribution import AttributionEvaluator
from mmjax.training.experiment import Evaluation
from mmjax.training.loop import fit

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Returns (workdir, the metrics of its last evaluation); checkpoints of steps 2 and 4."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    config = load_config(str(ROOT / "configs" / "openmoji.py:smoke"))
    for assignment in (
        "duration=4 steps",
        "evaluate_every=2 steps",
        "data.batch_size=16",
        "optimizer.schedule.warmup=0",
    ):
        override(config, assignment)
    return folder, fit(config, folder)


@pytest.fixture(scope="session")
def trained_watch(tmp_path_factory):
    """Returns (workdir, the metrics of its evaluations) of two sensors under early fusion, shares among them."""
    folder = tmp_path_factory.mktemp("runs") / "watch"
    config = load_config(str(ROOT / "configs" / "har.py:smoke"))
    evaluator = fdl.Config(AttributionEvaluator, pictures=3)
    source = config.evaluations["held_out"].source
    config.evaluations["why"] = fdl.Config(Evaluation, source, evaluator, batch_size=8)
    return folder, fit(config, folder)
