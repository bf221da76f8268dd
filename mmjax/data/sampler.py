"""Which record the global position p reads: a stateless permutation of every epoch."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.mixture import BLOCK, as_mixture
from mmjax.data.source import Source
from mmjax.data.tf import tf


def shuffle_index(index: np.ndarray, size: int, *key: int | str) -> np.ndarray:
    """Returns where a keyed permutation of range(size) sends index.

    Args:
      index: [N] int64 in [0, size).
      size: length of the permutation.
      *key: what the permutation depends on; hashed with SHA-256, so (1, 23) and (12, 3) differ.

    Returns:
      [N] int64 in [0, size).
    """
    seed, last = _constants(size, key)
    index = tf.constant(np.asarray(index, np.int64))
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=seed, max_index=last, rounds=4).numpy()


@functools.lru_cache(maxsize=256)
def _constants(size: int, key: tuple[int | str, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the seed [3] and the last index as tensors; making them costs ten times what shuffling 16 numbers does.

    The first word is the one that `tf.random.experimental.index_shuffle` puts before a seed of two.
    """
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()[:16]
    seed = np.concatenate([[498247692], np.frombuffer(digest, "<i8")])
    return tf.constant(seed, tf.int64), tf.constant(size - 1, tf.int64)


@dataclasses.dataclass(frozen=True)
class Draws:
    """N draws, each from one part of the mixture.

    Attributes:
      part: [N] int64, which source.
      epoch: [N] int64, how many times that source was read through before.
      offset: [N] int64, the place in that epoch's permutation.
    """

    part: np.ndarray
    epoch: np.ndarray
    offset: np.ndarray


class Sampler:
    """Global position -> record id, a pure function of (source lengths, weights, seed, position).

    A single source is a mixture of one: position p is offset p % n of epoch p // n, and every epoch reads every record
    once. In a mixture, position p belongs to block p // 4096, whose shuffled slots hold each part's exact quota; the
    slot's rank among its part's slots gives the part's own running draw number, without counting.
    """

    def __init__(self, source: Source, seed: int):
        """Raises UserError where the source has more records than int32 group ids can tell apart."""
        self.mixture = as_mixture(source)
        self.seed = seed
        if len(self.mixture) >= 2**31:
            raise UserError(
                f"{self.mixture.name}: {len(self.mixture)} records are more than int32 group ids can tell apart "
                f"({2**31 - 1}); split the source."
            )

    def draws(self, positions: np.ndarray) -> Draws:
        """Returns the draws of global positions [N] int64."""
        positions = np.asarray(positions, np.int64)
        part, number = self._draw_numbers(positions)
        length = np.array([len(source) for source in self.mixture.parts], np.int64)[part]  # [N]
        return Draws(part, number // length, number % length)

    def _draw_numbers(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(self.mixture.parts) == 1:
            return np.zeros_like(positions), positions
        block, slot = positions // BLOCK, positions % BLOCK
        shuffled = np.empty_like(slot)
        for value in np.unique(block):
            rows = block == value
            shuffled[rows] = shuffle_index(slot[rows], BLOCK, "block", self.seed, value)
        first = np.concatenate([[0], np.cumsum(self.mixture.quotas)])  # [K + 1]
        part = np.searchsorted(first, shuffled, side="right") - 1
        return part, block * self.mixture.quotas[part] + shuffled - first[part]

    def records(self, draws: Draws, ahead: int | np.ndarray = 0) -> np.ndarray:
        """Returns the record ids [N] int64 of draws; `ahead` > 0 looks that much further in the same permutation."""
        records = np.empty_like(draws.offset)
        pairs = draws.part * (1 << 40) + draws.epoch
        for pair in np.unique(pairs):
            rows = pairs == pair
            part, epoch = divmod(int(pair), 1 << 40)
            length = len(self.mixture.parts[part])
            offset = (draws.offset + ahead)[rows] % length
            index = shuffle_index(offset, length, "epoch", self.seed, part, epoch)
            records[rows] = self.mixture.starts[part] + index
        return records
