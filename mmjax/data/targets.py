"""Supervision that is no input: one column of a record -> `Batch.targets`, such as the number of its class."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.source import BadRecord, Record, Source, unreadable
from mmjax.data.transform import ArraySpec

NO_LABEL = -1
"""The class of a row without one: padding, or a part of a mixture that has no labels."""

_MOST = np.iinfo(np.int32).max


class Target(Protocol):
    """Turns one column of a record into a row of `Batch.targets`; a dataclass whose fields are its settings."""

    column: str

    def out_spec(self) -> ArraySpec:
        """Returns (shape of one example, dtype)."""

    def prepare(self, record: Record) -> Any:
        """Returns one example's target.

        Raises:
          BadRecord: the record has none that can be used.
        """

    def collate(self, prepared: Sequence[Any]) -> np.ndarray:
        """Returns [B, ...] of B prepared targets, None among them being a row without one."""


@dataclasses.dataclass(frozen=True)
class LabelTarget:
    """The class of a record as a number.

    Attributes:
      column: of the record: a class's name, or its number unless numbers are among the names; or a list of one.
      classes: the name of each class, in order; None where the column holds numbers from 0.
    """

    column: str = "label"
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        names = None if self.classes is None else [str(name).strip() for name in self.classes]
        if isinstance(self.classes, str) or (names is not None and len(set(names)) < max(1, len(names))):
            raise UserError(f"LabelTarget: classes must be a list of names, each once, not {self.classes!r}.")
        object.__setattr__(self, "_numbers", {name: number for number, name in enumerate(names or ())})
        numbered = any(name.isdecimal() for name in names or ())  # then '0' may be the name of no class, not class 0
        object.__setattr__(self, "_most", _MOST if names is None else -1 if numbered else len(names) - 1)

    def out_spec(self) -> ArraySpec:
        """Returns the spec of [] int32."""
        return (), np.int32

    def prepare(self, record: Record) -> int:
        """Returns the number of the record's class.

        Raises:
          BadRecord: 'unknown_label' where there is none, or one that is no class.
        """
        label = label_of(record, self.column)
        if label in self._numbers:  # a name, though it may look like a number
            return self._numbers[label]
        if label.isdecimal() and len(label) <= len(str(_MOST)) and int(label) <= self._most:
            return int(label)
        valid = "a number" if self.classes is None else f"one of the {len(self.classes)} classes"
        raise BadRecord("unknown_label", f"{self.column} {label!r} is not {valid}.{nearest(label, self._numbers)}")

    def collate(self, prepared: Sequence[int | None]) -> np.ndarray:
        """Returns [B] int32, NO_LABEL where there is none."""
        return np.array([NO_LABEL if label is None else label for label in prepared], np.int32)


@dataclasses.dataclass(frozen=True)
class ValueTarget:
    """Numbers to be predicted: a score, or K of them.

    Attributes:
      column: of the record: a number, or as many as `shape` says.
      shape: of one example: () or (K,).
      required: whether a record without the value is a bad record; else it is NaN where there is none.
    """

    column: str = "score"
    shape: Sequence[int] = ()
    required: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.shape, (int, str)) or len(self.shape) > 1 or any(size < 1 for size in self.shape):
            raise UserError(f"ValueTarget.shape={self.shape!r} must be () for one number or (K,) for K of them.")

    def out_spec(self) -> ArraySpec:
        """Returns the spec of [] or [K] float32."""
        return tuple(self.shape), np.float32

    def prepare(self, record: Record) -> np.ndarray:
        """Returns the record's numbers, float32 of `shape`.

        Raises:
          BadRecord: 'no_value' where one is absent or NaN (if required); 'bad_value' for what is infinite, no number,
            or of another length.
        """
        value = record.get(self.column)
        if value is None:
            value = np.full(self.shape, np.nan)
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
                found = np.asarray(value, np.float32)
        except (ValueError, TypeError, OverflowError):
            raise BadRecord("bad_value", f"{self.column} {str(value)[:60]!r} is no number.") from None
        size = math.prod(self.shape)
        if found.size != size:
            raise BadRecord("bad_value", f"{self.column}: {found.size} numbers, expected {size}.")
        if np.isinf(found).any():
            raise BadRecord("bad_value", f"{self.column}: {found.tolist()} is not finite.")
        if self.required and np.isnan(found).any():
            raise BadRecord("no_value", f"the column {self.column!r} has no value.")
        return found.reshape(self.shape)

    def collate(self, prepared: Sequence[np.ndarray | None]) -> np.ndarray:
        """Returns [B] or [B, K] float32, NaN where there is none."""
        rows = [np.full(self.shape, np.nan, np.float32) if row is None else row for row in prepared]
        return np.stack(rows) if rows else np.zeros((0, *self.shape), np.float32)


def label_of(record: Record, column: str) -> str:
    """Returns the label of a record as text.

    Raises:
      BadRecord: 'unknown_label' where there is none, or several.
    """
    value = record.get(column)
    try:
        values = [] if value is None else np.asarray(value).reshape(-1).tolist()
    except ValueError:  # lists of different lengths
        raise BadRecord("unknown_label", f"the column {column!r} has {str(value)[:60]!r}; it needs one.") from None
    label = values[0] if len(values) == 1 and values[0] is not None else ""
    label = (label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)).strip()
    if not label:
        found = f"{len(values)} labels: {listed(map(str, values))}" if len(values) > 1 else "no label"
        raise BadRecord("unknown_label", f"the column {column!r} has {found}; it needs one.")
    return label


def classes_of(source: Source, column: str) -> list[str]:
    """Returns the names of a source's classes: those that it declares in `classes`, else the labels that occur, sorted.

    Args:
      source: may have `classes`, column -> names in order; else every record is read.
      column: of the labels.
    """
    declared = getattr(source, "classes", {}).get(column)
    if declared:
        return list(declared)

    def read(index: int) -> str | None:
        try:
            return label_of(source.read(index), column)
        except BadRecord:
            return None
        except OSError as error:
            raise unreadable(source, index, error) from error

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return sorted({label for label in pool.map(read, range(len(source))) if label is not None})
