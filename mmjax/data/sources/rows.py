"""The rows of a JSONL, CSV or TSV file by number: where each one starts, and what one means."""

from __future__ import annotations

import collections
import csv
import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from mmjax.core.errors import UserError
from mmjax.data.source import BadRecord
from mmjax.data.sources import files

Row = tuple[int, bytes, int]
"""(first byte, the row's bytes, line number from 1)."""

_MOST_LINES = 64  # a quoted CSV value with more line breaks than this is an opening quote that never closes


class JsonRows:
    """JSON Lines: every line that is not blank is one object. Iterating gives the rows."""

    fields: tuple[str, ...] = ()

    def __init__(self, path: str):
        self.path = path

    def __iter__(self) -> Iterator[Row]:
        return (line for line in _lines(self.path) if line[1].strip())

    def parse(self, data: bytes, where: str) -> dict[str, Any]:
        """Returns the object of a row.

        Raises:
          BadRecord: 'malformed_row'.
        """
        try:
            row = json.loads(data)
        except (ValueError, RecursionError) as e:  # brackets a thousand deep
            raise BadRecord("malformed_row", f"{where} is not JSON: {e}.") from e
        if not isinstance(row, dict):
            raise BadRecord("malformed_row", f"{where} is a JSON {type(row).__name__}, not an object.")
        return row


class CsvRows:
    """Separated values with a header line; the separator (, tab ; |) is the header's most frequent one.

    A value in quotes may hold line breaks. A quote that never closes spoils its own line alone. Iterating gives the
    rows after the header.

    Raises:
      UserError: (when made) the header cannot be read, or names a column twice.
    """

    def __init__(self, path: str):
        self.path = path
        first = next((line for _, line, _ in _lines(path) if line.strip()), b"").decode("utf-8-sig", errors="replace")
        self._separator = max(",\t;|", key=first.count)
        try:
            names = next(csv.reader([first], delimiter=self._separator), [])
        except csv.Error as error:
            raise UserError(
                f"The header of {path} cannot be read ({error}): {first[:80]!r}. Expected names of columns, and lines "
                "that end in \\n or \\r\\n."
            ) from error
        self.fields = tuple(name.strip() for name in names)
        if len(set(self.fields)) < len(self.fields):
            raise UserError(f"The header of {path} names a column twice: {first.strip()!r}.")

    def __iter__(self) -> Iterator[Row]:
        lines = _lines(self.path)
        next((line for line in lines if line[1].strip()), None)  # the header
        ahead: collections.deque[Row] = collections.deque()
        while (row := ahead.popleft() if ahead else next(lines, None)) is not None:
            start, data, number = row
            if data.count(b'"') % 2:
                ahead.extend(itertools.islice(lines, max(0, _MOST_LINES - len(ahead))))
                more = self._lines_more(data, ahead)
                data = b"".join([data, *(ahead.popleft()[1] for _ in range(more))])
            if data.strip():
                yield start, data, number

    def parse(self, data: bytes, where: str) -> dict[str, Any]:
        """Returns column -> str of a row.

        Raises:
          BadRecord: 'malformed_row'.
        """
        try:
            text = data.decode("utf-8")
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=self._separator))
        except (UnicodeDecodeError, csv.Error) as e:
            raise BadRecord("malformed_row", f"{where} cannot be read: {e}.") from e
        if len(rows) != 1 or len(rows[0]) != len(self.fields):
            got = len(rows[0]) if rows else 0
            raise BadRecord("malformed_row", f"{where} has {got} values; the header names {len(self.fields)}.")
        return dict(zip(self.fields, rows[0], strict=True))

    def _lines_more(self, data: bytes, ahead: Iterable[Row]) -> int:
        """Returns how many of the next lines belong to a row whose first has an odd number of quotes."""
        text = [data.decode(errors="replace")]
        for count, (_, line, _) in enumerate([(0, b"", 0), *ahead]):
            text.append(line.decode(errors="replace"))
            try:
                values = next(csv.reader(text, delimiter=self._separator, strict=True))
            except csv.Error as e:
                if "unexpected end of data" in str(e):
                    continue
                return 0
            return count if len(values) == len(self.fields) else 0
        return 0


def open_rows(path: str) -> JsonRows | CsvRows:
    """Returns the reader that fits the file's ending.

    Raises:
      UserError: it is none of .jsonl, .ndjson, .csv, .tsv, or its header cannot be read.
    """
    suffix = os.path.splitext(path)[1].lower()
    kinds = {".jsonl": JsonRows, ".ndjson": JsonRows, ".csv": CsvRows, ".tsv": CsvRows}
    if suffix not in kinds:
        raise UserError(f"A manifest is a .jsonl, .csv or .tsv file; {path!r} ends in {suffix!r}.")
    return kinds[suffix](path)


def _lines(path: str) -> Iterator[Row]:
    """Yields (first byte, the line with its end, line number from 1)."""
    at = 0
    with files.opened(path) as file:
        for number, line in enumerate(file, 1):
            yield at, line, number
            at += len(line)
