"""A small source kept in memory: each record is read once."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmjax.core.errors import UserError
from mmjax.data.mixture import Mixture
from mmjax.data.source import Record, Source


@dataclasses.dataclass(eq=False)
class InMemory:
    """The records of another source, each read when it is first asked for and kept.

    For data that fits in memory many times over and is trained on for many epochs. A bad record is read, and found bad,
    each time. All else (columns, classes, groups, labels) is the other source's.

    Attributes:
      source: whose records they are; no Mixture, whose weights and parts would be lost: its parts are kept instead.

    Raises:
      UserError: the source is a Mixture.
    """

    source: Source

    def __post_init__(self):
        if isinstance(self.source, Mixture):
            raise UserError(
                f"InMemory: {self.source.name} is a Mixture, which would be drawn from without its weights; keep its "
                "parts in memory instead: Mixture([InMemory(part), ...], weights)."
            )
        self._records: dict[int, Record] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str) -> Any:
        if name == "source" or name.startswith("__"):  # asked for before there is one, by copies
            raise AttributeError(name)
        return getattr(self.source, name)

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe, as two threads that read it at once keep the same."""
        if index not in self._records:
            self._records[index] = self.source.read(index)
        return dict(self._records[index])
