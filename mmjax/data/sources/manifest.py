"""A manifest: a JSONL, CSV or TSV file that names a picture and its caption in each row."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mmjax.core.errors import UserError, listed
from mmjax.data.source import BadRecord, Record
from mmjax.data.sources import columns as columns_lib
from mmjax.data.sources import files
from mmjax.data.sources.rows import open_rows

_LOOK = 100  # rows from which the columns are guessed


@dataclasses.dataclass(eq=False)
class ManifestSource:
    """The pictures that the rows of a file name.

    A row may hold several captions (a list in JSONL), and a picture may have several rows: they become one record
    with all its captions, at the place of the first, so that two captions of one picture are never taken for
    strangers. Blank captions are left out. A row that cannot be read is a bad record of its own ('malformed_row',
    named by its line). Opening reads each row once, about 5 seconds for a million (1 second with `group_by=None`).

    A path stays below `root`: one that leaves it ('../x.jpg', '/etc/x.jpg', 'gs://other/x.jpg') is a bad record
    ('path_outside') and its file is not opened. For a manifest of absolute paths `root` is the folder that holds all of
    them: '/data', 'gs://bucket', or '/' where they may lead anywhere on this machine.

    Attributes:
      path: the .jsonl, .csv or .tsv file, local or fsspec (gs://, s3://).
      columns: column -> the file's own name of it; None guesses 'image' and 'caption' and keeps the others.
      file_columns: columns whose value is a path; the record has the file's bytes.
      root: the folder that the paths start from; None is the manifest's own.
      group_by: the column whose equal values make one record of several rows; None is every row for itself.

    Raises:
      UserError: the file does not exist or is empty, a column is not in it, or none of the first pictures exists.
    """

    how: ClassVar[str] = (
        "A manifest has a column of picture paths ('image', 'file_name', 'path', ...) and one of captions ('caption', "
        "'text', 'title', ...); other names can be given: --set \"data.source.columns={'image': ..., 'caption': ...}\"."
    )

    path: str
    columns: Mapping[str, str] | None = None
    file_columns: Sequence[str] = ("image",)
    root: str | None = None
    group_by: str | None = "image"

    def __post_init__(self):
        if not files.is_file(self.path):
            raise UserError(f"The manifest {self.path!r} does not exist.{files.siblings(self.path)}")
        self.name = self.path
        signature = files.signature(self.path)  # before its rows are read
        self._rows = open_rows(self.path)
        self._root = self.root if self.root is not None else os.path.dirname(self.path)
        self._reader = files.RangeReader({self.path: signature})
        first = self._first_rows()
        names = list(dict.fromkeys(name for row in first for name in row)) or list(self._rows.fields)
        self.found = f"the columns {listed(names)}" if names else "no row that can be read"
        given = self.columns
        self.mapping = _guessed(first, names) if given is None else columns_lib.chosen(given, names, self.name)
        self.columns = tuple(self.mapping)
        self._table, self._starts, self._order = self._indexed()
        self._check_files(first)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe."""
        where = self.label(index)
        rows = [self._row(row) for row in self._rows_of(index)]
        return {column: self._value(column, [row.get(n) for row in rows], where) for column, n in self.mapping.items()}

    def label(self, index: int) -> str:
        """Returns 'data/captions.csv:17', the file and the line of the record's first row."""
        return f"{self.path}:{self._table[self._rows_of(index)[0], 2]}"

    def _rows_of(self, index: int) -> np.ndarray:
        return self._order[self._starts[index] : self._starts[index + 1]]

    def _row(self, row: int) -> dict[str, Any]:
        start, size, line = self._table[row].tolist()
        data = self._reader.read(self.path, start, size)
        if len(data) < size:
            raise BadRecord("changed_file", f"{self.path} has become shorter since it was opened.")
        return self._rows.parse(data, f"{self.path}:{line}")

    def _value(self, column: str, values: list[Any], where: str) -> Any:
        """Returns one column of a record from its value in each row."""
        if column in self.file_columns:
            path = values[0]
            if not isinstance(path, str) or not path.strip():
                raise BadRecord(f"missing_{column}", f"{where} names no file in {self.mapping[column]!r}.")
            if files.leaves(self._root, path.strip()):
                raise BadRecord(
                    "path_outside",
                    f"{where}: {path!r} leads out of {self._root or '.'!r}; give `root` a folder that holds it.",
                )
            return columns_lib.image(files.read(self._path(path), f"missing_{column}"), where)
        if column.startswith("caption"):
            flat = [c for value in values for c in (value if isinstance(value, list) else [value])]
            return list(dict.fromkeys(columns_lib.captions(flat, where)))
        return values[0]

    def _path(self, value: str) -> str:
        return files.join(self._root, value.strip())

    def _first_rows(self) -> list[dict[str, Any]]:
        """Returns the first rows that can be read."""
        rows = []
        for _, (_, data, line) in zip(range(_LOOK), self._rows, strict=False):
            try:
                rows.append(self._rows.parse(data, f"{self.path}:{line}"))
            except BadRecord:  # counted when it is read as a record
                continue
        return rows

    def _indexed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the table [rows, 3] (byte, bytes, line), the starts [records + 1] and the row order [rows].

        Record i is the rows order[starts[i] : starts[i + 1]].
        """
        key = self.mapping.get(self.group_by)
        table, keys = [], []
        for number, (start, data, line) in enumerate(self._rows):
            table.append((start, len(data), line))
            keys.append(-number - 1 if key is None else self._key(data, key, number))
        _, first, inverse = np.unique(np.array(keys, np.int64), return_index=True, return_inverse=True)
        record = np.argsort(np.argsort(first))[inverse]  # [rows] its record, in the order of first rows
        starts = np.concatenate([[0], np.cumsum(np.bincount(record, minlength=len(first)))])
        return np.array(table, np.int64).reshape(-1, 3), starts, np.argsort(record, kind="stable")

    def _key(self, data: bytes, name: str, number: int) -> int:
        """Returns what rows of one record have in common; a row that cannot be read has a negative key of its own."""
        try:
            value = self._rows.parse(data, "").get(name)
        except BadRecord:
            return -number - 1
        if not isinstance(value, str) or not value.strip():
            return -number - 1
        text = value.strip().encode(errors="surrogatepass")  # JSON may hold half of a surrogate pair
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1

    def _check_files(self, rows: list[dict[str, Any]]) -> None:
        """Raises where the paths of the first rows lead nowhere: the root is wrong, or they are web addresses."""
        for column in set(self.file_columns) & set(self.columns):
            values = [v for row in rows if isinstance(v := row.get(self.mapping[column]), str) and v.strip()]
            if values and values[0].startswith(("http://", "https://")):
                raise UserError(
                    f"{self.path} names its pictures by web address ({values[0]}); download them first, for "
                    "instance with img2dataset, and train on the tar shards that it writes."
                )
            if values and not files.is_remote(self._path(values[0])) and not any(map(self._exists, values)):
                raise UserError(
                    f"None of the first {len(values)} files that {self.path} names exists: {values[0]!r} was looked "
                    f"for at {self._path(values[0])!r}. Paths start from the manifest's folder, or from `root`, and "
                    "stay in it: for absolute paths give the folder that holds them (--data captions.csv:/data)."
                )

    def _exists(self, value: str) -> bool:
        return not files.leaves(self._root, value.strip()) and os.path.exists(self._path(value))


def _guessed(rows: list[dict[str, Any]], names: list[str]) -> dict[str, str]:
    """Returns the columns by name; a column that holds no text in the first rows is neither."""
    texts = [n for n in names if not rows or any(isinstance(row.get(n), str | list) for row in rows)]
    mapping = {}
    for column in ("image", "caption"):
        name = columns_lib.guess([n for n in texts if n not in mapping.values()], column)
        if name is not None:
            mapping[column] = name
    return mapping | {name: name for name in names if name not in mapping and name not in mapping.values()}
