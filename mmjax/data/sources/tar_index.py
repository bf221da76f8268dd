"""Where every sample of a tar shard lies: one pass over its headers, kept in a cache until the shard changes."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import logging
import os
import re
import sys
import uuid
import zipfile
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import rich.console
import rich.progress
from etils import epath

from mmjax.core.errors import UserError, listed
from mmjax.data.sources import files, tar_members

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)  # key . extension, as WebDataset splits a name
_VERSION = "1"
_log = logging.getLogger(__name__)


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


def load_indexes(shards: Sequence[str], cache_dir: str | None) -> list[TarIndex]:
    """Returns the index of every shard, in order; builds what the cache lacks, in threads.

    Args:
      shards: paths, local or fsspec.
      cache_dir: where indexes are kept; None is $XDG_CACHE_HOME/mmjax/tar-index (~/.cache).

    Raises:
      UserError: a shard does not exist or is compressed.
    """
    folder = cache_dir or _default_cache()

    def load(shard: str) -> TarIndex | None:
        try:
            return load_index(shard, folder)
        except FileNotFoundError:
            return None

    quiet = len(shards) < 8 or not sys.stderr.isatty()
    console = rich.console.Console(stderr=True)
    with concurrent.futures.ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        found = pool.map(load, shards)
        track = rich.progress.track(found, "Indexing shards", len(shards), console=console, disable=quiet)
        indexes = list(track)
    missing = [shard for shard, index in zip(shards, indexes, strict=True) if index is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(shards)} shards do not exist: {listed(missing, 3)}.{files.siblings(missing[0])}"
        )
    return indexes


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
        with files.opened(path) as file:
            index = build_index(file, size, path)
        _keep(kept, sign, index)
    return dataclasses.replace(index, signature=(size, stamp))


def build_index(file: BinaryIO, length: int, path: str) -> TarIndex:
    """Returns the index of an open shard of `length` bytes."""
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
    """Writes the index beside its place and renames, so that a reader sees all of it or none.

    Where nothing can be written, the next run builds the index again.
    """
    arrays = {name: value for name, value in vars(index).items() if name != "signature"}
    part = kept.parent / f"{kept.name}.{uuid.uuid4().hex}.part"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, sign=np.array(sign), **arrays)
        part.replace(kept)
    except OSError as error:
        _log.warning("The index of a shard cannot be kept in %s (%s): it is built again next time.", kept, error)


def _default_cache() -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "mmjax", "tar-index")
