"""The one interface of every data source: records by number.

A source is read at random: `read(i)` gives record i whenever it is asked, on any host. All order, shuffling and
batching is `data.sampler`'s, so a source holds no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mmjax.core.errors import UserError

Record = dict[str, Any]
"""Column -> value: 'image' encoded bytes, 'caption' a list of str (empty: none), or what else the source holds."""


class BadRecord(Exception):
    """One record that cannot be used; the pipeline replaces it, counts it by kind and names it in the log.

    Attributes:
      kind: a short snake_case word that is counted, e.g. 'truncated_image', 'empty_caption', 'empty_file'.
      detail: one sentence of what was found.
    """

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class Source(Protocol):
    """Random access to N records."""

    @property
    def name(self) -> str:
        """What messages and logs call this source."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns every record has."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record:
        """Returns record index, 0 <= index < len(self); thread-safe.

        Raises:
          BadRecord: this record is damaged; others may be fine.
        """

    def label(self, index: int) -> str:
        """Returns what a person needs to find record index: file and member, path, or id."""


def unreadable(source: Source, index: int, error: OSError) -> UserError:
    """Returns the sentence for a record that its storage does not give: trouble that is not the record's own."""
    return UserError(f"{source.name}: {source.label(index)} cannot be read: {error}")
