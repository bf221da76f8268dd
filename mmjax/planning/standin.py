"""A source in the place of the data, which a plan needs the shapes of and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import fiddle as fdl

from mmjax.core.errors import UserError
from mmjax.data.source import Record

RECORDS = 2**20
"""That it seems to hold, for a duration in epochs: the step's program does not depend on it."""


@dataclasses.dataclass(eq=False)
class StandIn:
    """A source with columns, and with no record that could be read.

    Attributes:
      columns: that it seems to have.
    """

    columns: Sequence[str]
    name: str = "the stand-in for the data of a plan"

    def __len__(self) -> int:
        return RECORDS

    def read(self, index: int) -> Record:
        """Raises UserError: there is none."""
        raise UserError(f"{self.label(index)} cannot be read: it only stands for the data.")

    def label(self, index: int) -> str:
        """Returns which record it is."""
        return f"record {index} of {self.name}"


def without_data(config: fdl.Config) -> fdl.Config:
    """Returns a copy of an Experiment's config that builds without its data: the columns it reads, no evaluations."""
    config = fdl.deepcopy_with(config)
    readers = [*config.data.transforms.values(), *config.data.__arguments__.get("targets", {}).values()]
    config.data.source = fdl.Config(StandIn, sorted({reader.column for reader in readers}))
    config.evaluations = {}
    return config
