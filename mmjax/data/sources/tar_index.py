"""Where every sample of a tar shard lies: one pass over its headers."""

from __future__ import annotations

import dataclasses
import re
from typing import BinaryIO

import numpy as np

from mmjax.data.sources import files, tar_members

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # key . extension, as WebDataset splits a name


@dataclasses.dataclass(frozen=True)
class TarIndex:
    """The n samples of one shard; a sample is the members of one key ('0001.jpg' and '0001.txt').

    Attributes:
      keys: [n] UTF-8 bytes.
      extensions: [E] lower case, without the dot.
      offsets: [n, E] int64, the first byte of the member.
      sizes: [n, E] int64 bytes; -1 where the sample has no such member.
      cut: the byte at which the shard breaks off, or -1. Where it does, the last sample stands for all that was lost.
      signature: of the shard that was indexed, or None.
    """

    keys: np.ndarray
    extensions: tuple[str, ...]
    offsets: np.ndarray
    sizes: np.ndarray
    cut: int
    signature: files.Signature | None = None

    def __len__(self) -> int:
        return len(self.keys)


def build_index(file: BinaryIO, length: int, path: str) -> TarIndex:
    """Returns the index of an open shard of `length` bytes.

    Raises:
      UserError: the shard is compressed.
    """
    rows: list[tuple[str, dict[str, tuple[int, int]]]] = []
    latest: dict[str, int] = {}  # key -> its row
    cut = -1
    for name, offset, size in tar_members.members(file, length, path):
        match = _NAME.fullmatch(name or "")
        key, extension = (match[1], match[2].lower()) if match else ("", "")
        if not match and size >= 0:
            continue  # the name of a folder or of a hidden file
        if key not in latest or extension in rows[latest[key]][1]:
            latest[key] = len(rows)
            rows.append((key, {}))
        if size < 0:
            cut = offset
            rows.append(rows.pop(latest[key]))  # the broken sample goes last
        else:
            rows[latest[key]][1][extension] = (offset, size)
    return _table(rows, cut)


def _table(rows: list[tuple[str, dict[str, tuple[int, int]]]], cut: int) -> TarIndex:
    """Returns the arrays of rows (key, extension -> (first byte, size))."""
    extensions = tuple(sorted({extension for _, row in rows for extension in row}))
    table = [[row.get(extension, (0, -1)) for extension in extensions] for _, row in rows]
    table = np.array(table, np.int64).reshape(len(rows), len(extensions), 2)  # [n, E, 2]
    keys = np.array([key.encode(errors="replace") for key, _ in rows], np.bytes_)
    return TarIndex(keys, extensions, table[..., 0], table[..., 1], cut)
