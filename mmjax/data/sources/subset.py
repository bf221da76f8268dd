"""A share of the records of another source, the smaller inside the larger."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.mixture import group_of
from mmjax.data.sampler import shuffle_index
from mmjax.data.source import Record
from mmjax.data.sources.wrapped import Wrapped


@dataclasses.dataclass(eq=False)
class Subset(Wrapped):
    """round(share * N) of the N records of another source, one at least, drawn by a keyed permutation.

    A function of (N, share, seed) alone, without state. Those of a smaller share are among those of a larger one:
    record i is the same of both. Beside views of the same source in a `Mixture` it makes semi-paired data: few pictures
    with their names, and all pictures and all names alone.

    Attributes:
      source: whose records they are; see `Wrapped`.
      share: of the records, above 0 and at most 1.
      seed: of the permutation, which is not the order of training.

    Raises:
      UserError: a share out of range.
    """

    share: float
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise UserError(f"Subset: share={self.share} of {self.source.name} must be above 0 and at most 1.")
        self.name = f"{self.source.name} ({100 * self.share:g} %)"

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
