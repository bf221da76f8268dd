"""A share of the records of another source, the smaller inside the larger."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.mixture import Mixture, group_of
from mmjax.data.sampler import shuffle_index
from mmjax.data.source import Record, Source


@dataclasses.dataclass(eq=False)
class Subset:
    """round(share * N) of the N records of another source, one at least, drawn by a keyed permutation.

    A function of (N, share, seed) alone, without state. Those of a smaller share are among those of a larger one:
    record i is the same of both. Beside views of the same source in a `Mixture` it makes semi-paired data: few pictures
    with their names, and all pictures and all names alone.

    Attributes:
      source: whose records they are; no Mixture, whose weights would be lost.
      share: of the records, above 0 and at most 1.
      seed: of the permutation, which is not the order of training.

    Raises:
      UserError: a share out of range, or the source is a Mixture.
    """

    source: Source
    share: float
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.source, Mixture):
            raise UserError(f"Subset: {self.source.name} is a Mixture; make a Mixture of subsets of its parts instead.")
        if not 0 < self.share <= 1:
            raise UserError(f"Subset: share={self.share} of {self.source.name} must be above 0 and at most 1.")
        self.name = f"{self.source.name} ({100 * self.share:g} %)"

    @property
    def columns(self) -> Sequence[str]:
        """The source's columns."""
        return self.source.columns

    def __len__(self) -> int:
        return min(len(self.source), max(1, round(self.share * len(self.source))))

    def locate(self, index: int) -> int:
        """Returns the source's own number of record index."""
        return int(shuffle_index(np.array([index]), len(self.source), "subset", self.seed)[0])

    def read(self, index: int) -> Record:
        """Returns record index."""
        return self.source.read(self.locate(index))

    def label(self, index: int) -> str:
        """Returns the record's own label."""
        return self.source.label(self.locate(index))

    def group(self, index: int) -> int:
        """Returns the record's own group."""
        return group_of(self.source, self.locate(index))
