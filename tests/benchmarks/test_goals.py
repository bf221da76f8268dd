"""The benchmarks say whether their goals are reached, and by what they judged."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import checkpoint
from benchmarks import input as input_benchmark
from benchmarks.input import Measured
from mmjax.training import state as states


def test_input_ratios_are_judged_by_the_median_of_the_turns():
    found = {
        "tar shards": [Measured(rate, 0.1) for rate in (1000, 900, 100)],
        "tar shards, antialias": [Measured(rate, 0.1) for rate in (500, 560, 560)],
        "open_clip": [Measured(200, 0.1, "0.2.86")] * 3,
        "big_vision": [Measured(800, 0.1)] * 3,
    }
    lines = list(input_benchmark.judged(found, ["tar shards"]))
    assert [line.split()[-1] for line in lines] == ["reached", "MISSED", "reached"]
    assert "4.50 x open_clip" in lines[0] and "goal 1.3" in lines[1] and "2.80 x open_clip" in lines[2]
    del found["open_clip"]
    assert len(list(input_benchmark.judged(found, ["tar shards"]))) == 1


@pytest.fixture(scope="module")
def turn(tmp_path_factory) -> tuple[states.TrainState, checkpoint.Turn]:
    """A turn with a state of a megabyte."""
    values = np.random.default_rng(0).standard_normal((256, 1024), np.float32) * np.float32(0.02)
    state = states.create({"kernel": jnp.asarray(values)}, optax.sgd(1e-3), None)
    return state, checkpoint.one_turn(tmp_path_factory.mktemp("turn"), state, saves=2, python=None)


def test_compression_is_measured(turn):
    state, measured = turn
    assert measured.plain.size > 2**20 > 0.95 * measured.zstd.size > 0.8 * 2**20
    (line,) = [line for line in checkpoint.lines(state, [measured]) if line.startswith("zstd / no compression")]
    assert line.endswith("% fewer bytes")


@pytest.mark.parametrize(("blocked", "load", "words"), [(0.2, 1.0, ["reached"] * 2), (0.4, 0.5, ["MISSED"] * 2)])
def test_checkpoint_goals_are_judged(turn, blocked, load, words):
    state, measured = turn
    peer = {"save": 1.0, "load": load, "load_cpu": 1.0}
    measured = dataclasses.replace(measured, blocked=[0.1, blocked], restore=1.2, peer=peer)
    goals = [line for line in checkpoint.lines(state, [measured]) if "goal" in line]
    assert [line.partition(": ")[2].split(";")[0] for line in goals] == words
