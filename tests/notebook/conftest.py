"""A run of a few steps of the smoke size, shared by the tests of this folder."""

import pathlib

import pytest

from mmjax.core.config import load_config
from mmjax.core.override import override
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
