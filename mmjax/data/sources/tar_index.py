"""Where every sample of a tar shard lies: one pass over its headers, kept in a cache until the shard changes.

The headers are read here, not by `tarfile`, which takes five to ten times as long per member; the tests compare the
two on every tar format. Nothing is ever extracted, so a member's name ('../../etc/passwd') is a label and no path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import uuid
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

import fsspec
import numpy as np
from etils import epath

from mmjax.core.errors import UserError
from mmjax.data.sources import files

BLOCK = 512
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # key . extension, as WebDataset splits a name
_VERSION = "1"


@dataclasses.dataclass(frozen=True)
class TarIndex:
    """The n samples of one shard; a sample is the members of one key ('0001.jpg' and '0001.txt').

    Attributes:
      keys: [n] UTF-8 bytes.
      extensions: [E] lower case, without the dot.
      offsets: [n, E] int64, the first byte of the member.
      sizes: [n, E] int64 bytes; -1 where the sample has no such member.
      cut: the byte at which the shard breaks off, or -1. Where it does, the last sample stands for all that was lost.
    """

    keys: np.ndarray
    extensions: tuple[str, ...]
    offsets: np.ndarray
    sizes: np.ndarray
    cut: int

    def __len__(self) -> int:
        return len(self.keys)


def load_index(path: str, cache_dir: str) -> TarIndex:
    """Returns the index of a shard, from the cache where size and time of change still agree, else built and kept.

    Raises:
      FileNotFoundError: there is no such shard.
      UserError: the shard is compressed.
    """
    size, stamp = files.signature(path)
    absolute = path if files.is_remote(path) else os.path.abspath(path)
    sign = "\n".join([_VERSION, absolute, str(size), stamp])
    kept = epath.Path(cache_dir) / f"{hashlib.sha256(absolute.encode()).hexdigest()[:32]}.npz"
    index = _kept(kept, sign)
    if index is None:
        with fsspec.open(path, "rb") as file:
            index = build_index(file, size, path)
        _keep(kept, sign, index)
    return index


def build_index(file: BinaryIO, length: int, path: str) -> TarIndex:
    """Returns the index of an open shard of `length` bytes."""
    rows: list[tuple[str, dict[str, tuple[int, int]]]] = []
    latest: dict[str, int] = {}  # key -> its row
    cut = -1
    for name, offset, size in members(file, length, path):
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


def members(file: BinaryIO, length: int, path: str) -> Iterator[tuple[str | None, int, int]]:
    """Yields (name, first byte, size) of every regular member.

    A shard that breaks off yields a last (name or None, byte where it does, -1) and ends.

    Raises:
      UserError: the shard is compressed.
    """
    at, ended, name, pax_size = 0, False, None, None
    if file.read(2) in (b"\x1f\x8b", b"BZ", b"(\xb5", b"\xfd7"):
        raise UserError(f"The shard {path} is compressed and cannot be read at random: unpack it to a plain .tar.")
    while at + BLOCK <= length:
        file.seek(at)
        header = file.read(BLOCK)
        if not header.strip(b"\0"):
            ended, at = True, at + BLOCK
            continue
        size = _size(header)
        if size is None:
            yield None, at, -1
            return
        kind, data = header[156:157], at + BLOCK
        if kind in b"xLg":  # what follows describes the next member
            extra = file.read(size)
            if kind == b"L":
                name = extra.rstrip(b"\0").decode(errors="replace")
            elif kind == b"x":
                pax_name, pax_size = _pax(extra)
                name = pax_name or name
        else:
            size = size if pax_size is None else pax_size
            name = _name(header) if name is None else name
            if data + size > length:
                yield name, at, -1
                return
            if kind in (b"0", b"\0", b"7"):
                yield name, data, size
            name, pax_size = None, None
        ended, at = False, data + -(-size // BLOCK) * BLOCK
    if not ended:
        yield name, min(at, length), -1


def _size(header: bytes) -> int | None:
    """Returns the size field of a header, or None where this is no tar header."""
    try:
        if int(header[148:156].strip(b" \0") or b"0", 8) != sum(header) - sum(header[148:156]) + 8 * 32:
            return None
        if header[124] & 0x80:  # base 256: a member of 8 GiB or more
            return int.from_bytes(header[125:136], "big")
        return int(header[124:136].strip(b" \0") or b"0", 8)
    except ValueError:
        return None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode(errors="replace")


def _pax(extra: bytes) -> tuple[str | None, int | None]:
    """Returns the path and the size that a pax header gives, or None for each."""
    found, at = {}, 0
    while at < len(extra) and (record := re.match(rb"(\d+) ", extra[at:])):
        length = int(record[1])
        key, _, value = extra[at + record.end() : at + length - 1].partition(b"=")
        found[key] = value
        at += max(length, 1)
    size = found.get(b"size")
    path = found.get(b"path")
    return path if path is None else path.decode(errors="replace"), None if size is None else int(size)


def _kept(kept: epath.Path, sign: str) -> TarIndex | None:
    """Returns the index in the cache, or None where there is none for this very shard."""
    try:
        with kept.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if str(data["sign"]) != sign:
                return None
            extensions = tuple(str(e) for e in data["extensions"])
            return TarIndex(data["keys"], extensions, data["offsets"], data["sizes"], int(data["cut"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(kept: epath.Path, sign: str, index: TarIndex) -> None:
    """Writes the index beside its place and renames, so that a reader sees all of it or none."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.parent / f"{kept.name}.{uuid.uuid4().hex}.part"
    with part.open("wb") as file:
        np.savez(file, sign=np.array(sign), **dataclasses.asdict(index))
    part.replace(kept)
