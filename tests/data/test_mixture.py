"""Weights are met exactly in every block, and each part keeps its own epochs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.core.errors import UserError
from mmjax.data.mixture import BLOCK, Mixture, quotas
from mmjax.data.sampler import Sampler
from tests.data.memory import Numbers


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=8))
def test_quotas_fill_the_block_and_are_nearest(weights):
    found = quotas(weights)
    assert found.sum() == BLOCK
    assert np.all(np.abs(found - np.array(weights) / sum(weights) * BLOCK) < 1)


def test_every_block_has_the_exact_shares():
    mixture = Mixture([Numbers(10, "a"), Numbers(1000, "b"), Numbers(77, "c")], [1, 2, 5])
    draws = Sampler(mixture, seed=0).draws(np.arange(3 * BLOCK))
    for block in draws.part.reshape(3, BLOCK):
        assert np.bincount(block).tolist() == [512, 1024, 2560]
    assert len({tuple(block) for block in draws.part.reshape(3, BLOCK).tolist()}) == 3  # orders differ


def test_each_part_has_its_own_epochs():
    mixture = Mixture([Numbers(10, "a"), Numbers(1000, "b")], [1, 3])
    sampler = Sampler(mixture, seed=0)
    draws = sampler.draws(np.arange(BLOCK))
    records = sampler.records(draws)
    for part, (start, size) in enumerate(((0, 10), (10, 1000))):
        rows = draws.part == part
        running = draws.epoch[rows] * size + draws.offset[rows]
        assert sorted(running.tolist()) == list(range(rows.sum()))  # the k-th draw, each exactly once
        for epoch in range(rows.sum() // size):
            found = records[rows][draws.epoch[rows] == epoch]
            assert sorted(found.tolist()) == list(range(start, start + size))


def test_positions_are_random_access():
    sampler = Sampler(Mixture([Numbers(10, "a"), Numbers(100, "b")], [1, 1]), seed=2)
    positions = np.arange(BLOCK - 50, BLOCK + 50)
    together = sampler.records(sampler.draws(positions))
    alone = [int(sampler.records(sampler.draws(np.array([p])))[0]) for p in positions]
    assert together.tolist() == alone


def test_as_a_source_it_is_the_parts_in_a_row():
    mixture = Mixture([Numbers(3, "a"), Numbers(2, "b")])
    assert len(mixture) == 5 and mixture.columns == ["number"] and mixture.name == "a + b"
    assert [(mixture.label(i), mixture.read(i)["number"]) for i in range(5)] == [
        ("a/0", 0), ("a/1", 1), ("a/2", 2), ("b/0", 0), ("b/1", 1),
    ]  # fmt: skip
    assert [mixture.group(i) for i in range(5)] == [0, 1, 2, 3, 4]


def test_no_weights_are_the_lengths_and_nesting_keeps_shares():
    assert Mixture([Numbers(30, "a"), Numbers(10, "b")]).quotas.tolist() == [3072, 1024]
    inner = Mixture([Numbers(5, "a"), Numbers(5, "b")], [1, 3])
    outer = Mixture([inner, Numbers(5, "c")], [1, 1])
    assert [part.name for part in outer.parts] == ["a", "b", "c"]
    assert outer.quotas.tolist() == [512, 1536, 2048]


@pytest.mark.parametrize(
    ("sources", "weights", "message"),
    [
        ([], None, "at least one source"),
        ([Numbers(1)], [1, 2], "one positive number for each of the 1 sources"),
        ([Numbers(1), Numbers(1)], [1, 0], "positive"),
        ([Numbers(1), Numbers(0, "none")], [1, 1], "none: the source holds no records"),
        ([Numbers(1), Numbers(1, "rare")], [1, 1e-9], "weight of rare"),
    ],
)
def test_mistakes_are_sentences(sources, weights, message):
    with pytest.raises(UserError, match=message):
        Mixture(sources, weights)
