"""A small source kept in memory: each record is read once."""

from __future__ import annotations

import dataclasses

from mmjax.data.source import Record
from mmjax.data.sources.wrapped import Wrapped


@dataclasses.dataclass(eq=False)
class InMemory(Wrapped):
    """The records of another source, each read when it is first asked for and kept.

    For data that fits in memory many times over and is trained on for many epochs. A bad record is read, and found bad,
    each time.

    Attributes:
      source: whose records they are; see `Wrapped`.
    """

    def __post_init__(self):
        super().__post_init__()
        self._records: dict[int, Record] = {}

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe, as two threads that read it at once keep the same."""
        if index not in self._records:
            self._records[index] = self.source.read(index)
        return dict(self._records[index])
