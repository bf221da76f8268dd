"""Every epoch is a permutation, and a position's record depends on nothing else."""

import hashlib

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.sampler import Sampler, shuffle_index
from mmjax.data.tf import tf
from tests.data.memory import Numbers


@pytest.mark.parametrize("size", [1, 2, 7, 100, 4097])
def test_every_epoch_reads_every_record_once(size):
    sampler = Sampler(Numbers(size), seed=3)
    records = sampler.records(sampler.draws(np.arange(3 * size)))
    for epoch in records.reshape(3, size):
        assert sorted(epoch.tolist()) == list(range(size))


def test_epochs_and_seeds_differ_and_are_shuffled():
    orders = [Sampler(Numbers(1000), seed).draws(np.arange(2000)) for seed in (0, 1)]
    first, second = (Sampler(Numbers(1000), seed).records(draws) for seed, draws in zip((0, 1), orders, strict=True))
    for a, b in ((first[:1000], first[1000:]), (first[:1000], second[:1000]), (first[:1000], np.arange(1000))):
        assert np.mean(a == b) < 0.02
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.15


def test_a_position_is_read_alone_as_in_company():
    sampler = Sampler(Numbers(37), seed=5)
    positions = np.arange(200)
    together = sampler.records(sampler.draws(positions))
    alone = [int(sampler.records(sampler.draws(positions[i : i + 1]))[0]) for i in positions]
    assert together.tolist() == alone


def test_looking_ahead_follows_the_permutation_and_wraps():
    sampler = Sampler(Numbers(10), seed=1)
    epoch = sampler.records(sampler.draws(np.arange(10)))
    for ahead in range(10):
        assert sampler.records(sampler.draws(np.array([7])), ahead)[0] == epoch[(7 + ahead) % 10]


def test_the_order_is_pinned():
    """A change of this order would change every run that is restarted."""
    sampler = Sampler(Numbers(1000), seed=0)
    assert sampler.records(sampler.draws(np.arange(998, 1004))).tolist() == [748, 670, 152, 370, 980, 433]


def test_it_is_tensorflows_own_index_shuffle():
    index = np.arange(1000)
    seed = np.frombuffer(hashlib.sha256(b"epoch/7/0/3").digest()[:16], "<i8")
    expected = tf.random.experimental.index_shuffle(index, seed, np.int64(999)).numpy()
    assert shuffle_index(index, 1000, "epoch", 7, 0, 3).tolist() == expected.tolist()


def test_keys_are_not_confused():
    index = np.arange(50)
    assert shuffle_index(index, 50, "a", 1, 23).tolist() != shuffle_index(index, 50, "a", 12, 3).tolist()


def test_far_positions_need_no_walk():
    sampler = Sampler(Numbers(1000), seed=0)
    records = sampler.records(sampler.draws(np.arange(10**15, 10**15 + 1000)))
    assert sorted(records.tolist()) == list(range(1000))


def test_more_records_than_group_ids_is_an_error():
    with pytest.raises(UserError, match="int32 group ids"):
        Sampler(Numbers(2**31), seed=0)
