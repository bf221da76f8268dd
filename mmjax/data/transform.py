"""The Transform interface: from a record to one modality's stream; and what every transform needs.

A transform is a dataclass of plain values; a new modality is one more file with one of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.types import Stream
from mmjax.data.source import BadRecord, Record

ArraySpec = tuple[tuple[int, ...], Any]
"""Shape without the batch axis, and dtype."""

_ALIGNMENT = 64
"""Bytes; an array that starts at a multiple of it is taken over by tf.data, any other is copied."""


class Transform(Protocol):
    """Turns one column of a record into a Stream; a dataclass whose fields are its settings.

    Attributes:
      column: of the record.
      draws_with: (may be left out) a name under which several modalities draw the same chance, as two sensors of one
        watch share window and rotation; None or absent: each draws its own.
    """

    column: str

    def out_spec(self) -> dict[str, ArraySpec]:
        """Returns 'values' and 'mask' -> (shape of one example, dtype)."""

    def prepare(self, record: Record, rng: np.random.Generator | None) -> Any:
        """Does one example's share of the work; rng None means evaluation, without chance.

        Raises:
          BadRecord: the record cannot be used.
        """

    def collate(self, prepared: Sequence[Any]) -> Stream:
        """Returns the stream of B prepared examples, None among them being a missing modality."""

    def spec(self) -> dict[str, Any]:
        """Returns the settings as JSON-able values with 'type', the class's import path."""


def spec_of(transform: Any, **replace: Any) -> dict[str, Any]:
    """Returns the spec of a dataclass transform, with some of its fields replaced."""
    cls = type(transform)
    fields = {field.name: getattr(transform, field.name) for field in dataclasses.fields(transform)} | replace
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    return {"type": f"{cls.__module__}.{cls.__qualname__}", **plain}


def get_column(record: Record, column: str) -> Any:
    """Returns record[column].

    Raises:
      BadRecord: the value is None.
      UserError: the record has no such column.
    """
    if column not in record:
        raise UserError(f"there is no column {column!r}.{nearest(column, record)} The record has {listed(record)}.")
    if record[column] is None:
        raise BadRecord("missing_value", f"the column {column!r} is empty.")
    return record[column]


def stack_rows(rows: Sequence[np.ndarray | None], spec: Mapping[str, ArraySpec]) -> np.ndarray:
    """Returns [B, ...] of the rows, zeros where a row is None."""
    shape, dtype = spec["values"]
    out = _aligned((len(rows), *shape), np.dtype(dtype))
    for place, row in enumerate(rows):
        out[place] = 0 if row is None else row
    return out


def stack_padded(rows: Sequence[np.ndarray | None], spec: Mapping[str, ArraySpec]) -> Stream:
    """Returns rows [<= T, ...] of different lengths as values [B, T, ...], 0 past their ends, and mask [B, T]."""
    shape, dtype = spec["values"]
    values = _aligned((len(rows), *shape), np.dtype(dtype))
    lengths = np.array([0 if row is None else len(row) for row in rows])
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        values[place, length:] = 0
        if row is not None:
            values[place, :length] = row
    return Stream(values, np.arange(shape[0]) < lengths[:, None])


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Returns an array that is not filled and starts at a multiple of _ALIGNMENT."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
