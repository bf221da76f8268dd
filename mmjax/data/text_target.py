"""The words of a record for whom judges by them: a caption -> `Batch.targets`, as bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmjax.core.errors import at_least
from mmjax.core.words import pack
from mmjax.data.source import BadRecord, Record
from mmjax.data.text import as_text
from mmjax.data.transform import ArraySpec, get_column


@dataclasses.dataclass(frozen=True)
class TextTarget:
    """The first caption of a record as UTF-8, filled up with zeros; `core.words.unpack` reads it.

    Attributes:
      column: of the record, a str or a list of str.
      max_bytes: L; a longer caption is a bad record, as a part of it would be another one.
    """

    column: str = "caption"
    max_bytes: int = 256

    def __post_init__(self) -> None:
        at_least(1, "TextTarget", max_bytes=self.max_bytes)

    def out_spec(self) -> ArraySpec:
        """Returns the spec of [L] uint8."""
        return (self.max_bytes,), np.uint8

    def prepare(self, record: Record) -> bytes:
        """Returns the caption, its runs of white space being one space.

        Raises:
          BadRecord: 'empty_caption', 'bad_encoding' where it is not UTF-8, 'long_caption'.
        """
        value = get_column(record, self.column)
        values = [value] if isinstance(value, str | bytes) else list(value)
        text = " ".join(as_text(values[0]).replace("\0", " ").split()) if values else ""
        if not text:
            raise BadRecord("empty_caption", f"the column {self.column!r} has no caption.")
        if len(encoded := text.encode()) > self.max_bytes:
            raise BadRecord("long_caption", f"a caption of {len(encoded)} bytes; max_bytes is {self.max_bytes}.")
        return encoded

    def collate(self, prepared: Sequence[bytes | None]) -> np.ndarray:
        """Returns [B, L] uint8, zeros where there is none."""
        return pack(prepared, self.max_bytes)
