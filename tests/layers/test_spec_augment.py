"""SpecAugment hides stripes of the valid frames, as wide and as many as it says, by each example's own key."""

import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.layers.dropout import example_keys
from mmjax.layers.spec_augment import SpecAugment

B, F, M = 64, 40, 20
RNG = np.random.default_rng(0)
X = RNG.standard_normal((B, F, M)).astype(np.float32)
LENGTHS = RNG.integers(5, F + 1, B)
MASK = np.arange(F) < LENGTHS[:, None]
KEYS = example_keys(jax.random.key(0), B)


def hidden(augment: SpecAugment) -> np.ndarray:
    """Returns which values [B, F, M] were changed; they must be the example's mean over its valid frames."""
    found = np.asarray(jax.jit(augment)(X, MASK, KEYS))
    changed = found != X
    means = np.where(MASK[..., None], X, 0).sum(axis=(1, 2)) / (LENGTHS * M)
    np.testing.assert_allclose(found[changed], np.broadcast_to(means[:, None, None], X.shape)[changed], atol=1e-6)
    assert not changed[~MASK].any()
    return changed


def test_one_stripe_of_time_is_whole_and_of_every_width_and_place():
    changed = hidden(SpecAugment(time_masks=1, time_width=8))
    times = changed.any(axis=2)
    assert (changed.all(axis=2) == times).all()
    widths = times.sum(axis=1)
    assert set(widths.tolist()) == {0, 1, 2, 3, 4, 5} | {6, 7, 8}
    edges = np.abs(np.diff(np.pad(times, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1)
    assert (edges[widths > 0] == 2).all()  # one run
    assert times[:, 0].any() and times[np.arange(B), LENGTHS - 1].any()


def test_stripes_of_frequency_and_the_share_of_time():
    changed = hidden(SpecAugment(frequency_masks=2, frequency_width=4))
    bands = np.where(MASK[..., None], changed, True).all(axis=1)  # [B, M]
    assert 4 < bands.sum(axis=1).max() <= 8 and bands.any(axis=0).all()
    times = hidden(SpecAugment(time_masks=1, time_width=100, max_share=0.2)).all(axis=2).sum(axis=1)
    assert (times <= 0.2 * LENGTHS).all() and times.max() > 4


def test_each_key_draws_for_its_own_example_and_none_draws_nothing():
    augment = SpecAugment(time_masks=2, time_width=8, frequency_masks=2, frequency_width=4)
    found = jax.jit(augment)(X, MASK, KEYS)
    some = jax.jit(augment)(X[5:9], np.where(np.arange(4)[:, None] < 3, MASK[5:9], False), KEYS[5:9])
    np.testing.assert_allclose(some[:3], found[5:8], atol=1e-6)
    np.testing.assert_array_equal(some[3], X[8])  # a missing recording
    assert augment(X, MASK, None) is X and SpecAugment()(X, MASK, KEYS) is X


def test_wrong_settings_are_sentences():
    with pytest.raises(UserError, match=r"SpecAugment\.time_masks=-1 must be at least 0"):
        SpecAugment(time_masks=-1)
    with pytest.raises(UserError, match="max_share=2 is a share of the frames"):
        SpecAugment(max_share=2)
