"""Several sources as one, drawn by weight: which source position p reads, in O(1) and without state."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.source import Record, Source

BLOCK = 4096
"""Positions in a block; every block holds exactly `quotas(weights)` draws of each source."""


def quotas(weights: Sequence[float], block: int = BLOCK) -> np.ndarray:
    """Returns how many of a block's positions each weight gets, by largest remainder.

    Args:
      weights: K positive numbers; only their ratios matter.
      block: positions in a block.

    Returns:
      [K] int64 that sum to block; the lower index wins a tie.
    """
    share = np.asarray(weights, np.float64) / np.sum(weights) * block  # [K]
    floor = np.floor(share).astype(np.int64)
    order = np.argsort(floor - share, kind="stable")
    floor[order[: block - floor.sum()]] += 1
    return floor


@dataclasses.dataclass
class Mixture:
    """A source made of several: their records one after the other, drawn for training by weight.

    As a `Source` it is the concatenation (record ids of a part are offset by the lengths of the parts before it), so
    evaluation reads each record once. The sampler draws by `weights`: every block of 4096 positions holds an exact
    quota of each part, in a shuffled order, and each part has its own epochs and permutation. A weight of one part
    in 4096 is therefore the finest. A Mixture among the sources is flattened and keeps its share.

    Attributes:
      sources: the parts.
      weights: one positive number each; None draws in proportion to the parts' lengths.
    """

    sources: Sequence[Source]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("Mixture: needs at least one source.")
        weights = [len(source) for source in self.sources] if self.weights is None else list(self.weights)
        if len(weights) != len(self.sources) or not all(weight > 0 for weight in weights):
            raise UserError(
                f"Mixture: weights must be one positive number for each of the {len(self.sources)} sources, "
                f"not {list(self.weights or weights)}."
            )
        parts: list[tuple[Source, float]] = []
        for source, weight in zip(self.sources, weights, strict=True):
            inner = zip(source.parts, source.shares, strict=True) if isinstance(source, Mixture) else [(source, 1.0)]
            parts += [(part, weight / sum(weights) * share) for part, share in inner]
        self.parts = [part for part, _ in parts]
        self.shares = [share for _, share in parts]
        self.quotas = quotas(self.shares)  # [K]
        self._check()
        self.starts = np.concatenate([[0], np.cumsum([len(part) for part in self.parts])]).tolist()  # [K + 1]

    def _check(self) -> None:
        for part, share, quota in zip(self.parts, self.shares, self.quotas, strict=True):
            if len(part) == 0:
                raise UserError(f"{part.name}: the source holds no records.")
            if quota == 0:
                raise UserError(
                    f"Mixture: the weight of {part.name} is a share of {share:.2g}, finer than 1/{BLOCK}, so it would "
                    "never be drawn; raise its weight or leave it out."
                )

    @property
    def name(self) -> str:
        """The names of the parts, joined."""
        return " + ".join(part.name for part in self.parts)

    @property
    def columns(self) -> Sequence[str]:
        """Every column that some part has, in order of first appearance."""
        return list(dict.fromkeys(column for part in self.parts for column in part.columns))

    def __len__(self) -> int:
        return self.starts[-1]

    def locate(self, record: int) -> tuple[int, int]:
        """Returns (part, index in the part) of a record id."""
        part = bisect.bisect_right(self.starts, record) - 1
        return part, record - self.starts[part]

    def read(self, index: int) -> Record:
        """Returns record index of the concatenation."""
        part, inner = self.locate(index)
        return self.parts[part].read(inner)

    def label(self, index: int) -> str:
        """Returns the part's own label of record index."""
        part, inner = self.locate(index)
        return self.parts[part].label(inner)

    def group(self, index: int) -> int:
        """Returns the positive group of record index, unique over the parts."""
        part, inner = self.locate(index)
        return self.starts[part] + group_of(self.parts[part], inner)


def group_of(source: Source, index: int) -> int:
    """Returns the positive group of a record: what the source's `group` says, else the record's number."""
    group = getattr(source, "group", None)
    return index if group is None else group(index)


def lacks(source: Source, index: int, column: str) -> bool:
    """Says whether a record's part of a Mixture has no such column: what it would hold is missing there by design."""
    return isinstance(source, Mixture) and column not in source.parts[source.locate(index)[0]].columns


def as_mixture(source: Source) -> Mixture:
    """Returns source itself where it is a Mixture, else a mixture of it alone."""
    return source if isinstance(source, Mixture) else Mixture([source], [1.0])
