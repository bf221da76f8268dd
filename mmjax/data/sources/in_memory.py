"""A small source kept in memory: each record is read once."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmjax.data.source import Record, Source


@dataclasses.dataclass(eq=False)
class InMemory:
    """The records of another source, each read when it is first asked for and kept.

    For data that fits in memory many times over and is trained on for many epochs. A bad record is read, and found bad,
    each time. All else (columns, classes, groups, labels) is the other source's.

    Attributes:
      source: whose records they are.
    """

    source: Source

    def __post_init__(self):
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
