"""Files here and on remote stores alike: expand a pattern, sign a file, read a range of bytes from many threads."""

from __future__ import annotations

import collections
import errno
import glob
import io
import itertools
import os
import posixpath
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import BinaryIO

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.source import BadRecord
from mmjax.data.sources.remote import LISTING, is_remote, located, retried

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")

LOOK_AGAIN = 30.0
"""Seconds after which a remote file that is being read is looked at again; each look is a request to the store."""


def opened(path: str) -> BinaryIO:
    """Returns the file, open for reading."""
    if not is_remote(path):
        return open(path, "rb")
    return io.BufferedReader(_Remote(path), 1 << 16)


def is_file(path: str) -> bool:
    """Says whether there is a file of this path."""
    if not is_remote(path):
        return os.path.isfile(path)
    fs, inner = located(path)
    try:
        return retried(lambda: fs.info(inner), path)["type"] == "file"
    except FileNotFoundError:
        return False


def expand(pattern: str) -> list[str]:
    """Returns the files of a pattern in order: 'shard-{00000..00099}.tar', '{a,b}.tar', '*.tar', or one path.

    What exists by its very name ('copy[1].tar') is no pattern.

    Raises:
      UserError: nothing fits a glob. (Whether the files of a brace pattern exist is `signature`'s to say.)
    """
    paths = [pattern] if os.path.exists(pattern) else _braces(pattern)
    if not any(_is_glob(path) for path in paths):
        return paths
    found = list(itertools.chain.from_iterable(_glob(path) if _is_glob(path) else [path] for path in paths))
    if not found:
        raise UserError(f"No file fits the pattern {pattern!r}.{siblings(pattern)}")
    return found


def siblings(path: str) -> str:
    """Returns a hint for a local path that does not exist: what of its folder comes nearest, or what is there."""
    if is_remote(path):
        return ""
    folder, name = os.path.split(path.rstrip("/"))
    folder = folder or "."
    if not os.path.isdir(folder):
        return f" The folder {folder!r} does not exist."
    there = sorted(found for found in os.listdir(folder) if not found.startswith("."))
    return nearest(name, there) or (f" {folder!r} holds {listed(there, 5)}." if there else f" {folder!r} is empty.")


Signature = tuple[int, str]
"""(bytes, a word that changes when the file is replaced)."""


def signature(path: str) -> Signature:
    """Returns (bytes, a word that changes when the file is replaced).

    Raises:
      FileNotFoundError: there is no such file.
    """
    if not is_remote(path):
        return _signed(os.stat(path))
    fs, inner = located(path)
    info = retried(lambda: fs.info(inner), path)
    stamps = ("etag", "ETag", "md5Hash", "mtime", "LastModified", "updated", "created")
    return int(info["size"]), next((str(info[s]) for s in stamps if info.get(s)), "")


def _signed(stat: os.stat_result) -> Signature:
    return stat.st_size, str(stat.st_mtime_ns)


def check_unchanged(path: str, signed: Signature, now: Signature) -> None:
    """Raises BadRecord, 'changed_file', where the file is not the one that was signed."""
    if now != signed:
        what = f"{signed[0]:,} bytes, now {now[0]:,}" if now[0] != signed[0] else f"of {signed[1]}, now of {now[1]}"
        raise BadRecord(
            "changed_file",
            f"{path} was changed or replaced since it was indexed (it was {what}): put it back, or start again.",
        )


def read(path: str, missing: str) -> bytes:
    """Returns the bytes of a whole file.

    Raises:
      BadRecord: of kind `missing` where there is no such file, or no file can have this path.
      OSError: the storage fails.
      UserError: a remote store fails again and again.
    """
    try:
        store = located(path) if is_remote(path) else None
    except UserError as error:  # a protocol that nothing reads
        raise BadRecord(missing, f"{path!r} cannot be read: {error}") from None
    try:
        if store:
            return retried(lambda: store[0].cat_file(store[1]), path)
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise BadRecord(missing, f"{path} does not exist.") from None
    except ValueError as error:  # a NUL byte, half a surrogate pair
        raise BadRecord(missing, f"{path!r} cannot be read: {error}") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise BadRecord(missing, f"{path!r} is too long for a path.") from None


def join(root: str, path: str) -> str:
    """Returns `path` as seen from the folder `root`; a remote or absolute path as it is."""
    return path if is_remote(path) else os.path.join(root, path)


def leaves(root: str, path: str) -> bool:
    """Says whether `path`, as seen from the folder `root`, leads out of it: '../a', '/etc/a', 'gs://other/a'."""
    if not (".." in path or os.path.isabs(path) or is_remote(path)):
        return False  # as of nearly all, and the rest of this costs as much as opening the file
    folder, there = (_absolute(each) for each in (root, join(root, path)))
    return there != folder and not there.startswith(folder.rstrip("/") + "/")


def _absolute(path: str) -> str:
    scheme, colon, rest = path.partition("://")
    return scheme + colon + posixpath.normpath(rest) if colon else os.path.abspath(path)


def walk(root: str) -> list[str]:
    """Returns the files below a folder, as sorted paths from it; nothing hidden, no links to folders."""
    if is_remote(root):
        fs, inner = located(root)
        below = retried(lambda: fs.find(inner), root, attempt_seconds=LISTING)
        found = [os.path.relpath(path, inner) for path in below]
    else:
        found = [os.path.relpath(os.path.join(f, name), root) for f, _, names in os.walk(root) for name in names]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.split(os.sep)))


class RangeReader:
    """Reads ranges of files; thread-safe, with at most `most` local files open at once.

    Bytes are only given of the very file that was signed: a local one is looked at after each read. A remote one is
    looked at after its first read and after each that comes LOOK_AGAIN seconds later; bytes of a file that was replaced
    since the last look are given until the next.
    """

    def __init__(self, signatures: Mapping[str, Signature] | None = None, most: int = 256):
        self._signatures = dict(signatures or {})
        self._most = most
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[str, _Descriptor] = collections.OrderedDict()
        self._seen: dict[str, tuple[Signature, float]] = {}  # of remote files: what they were, and when

    def read(self, path: str, start: int, size: int) -> bytes:
        """Returns `size` bytes from byte `start`, or fewer where the file ends before.

        Raises:
          BadRecord: 'changed_file' where the file is not the one that was signed.
          OSError: it is gone, or the storage fails.
          UserError: a remote store fails again and again.
        """
        if is_remote(path):
            fs, inner = located(path)
            data = retried(lambda: fs.cat_file(inner, start=start, end=start + size), path) if size else b""
            now = self._looked_at(path) if path in self._signatures else None
        else:
            descriptor = self._descriptor(path)
            data = os.pread(descriptor.number, size, start)
            now = _signed(os.fstat(descriptor.number))
        if len(data) == size:
            self._check(path, now)
        return data

    def _looked_at(self, path: str) -> Signature:
        """Returns the signature of a remote file, at most LOOK_AGAIN seconds old; of several threads one looks."""
        with self._lock:
            before = self._seen.get(path)
            due = before is None or time.monotonic() - before[1] >= LOOK_AGAIN
            if due and before is not None:
                self._seen[path] = before[0], time.monotonic()
        if not due:
            return before[0]
        fs, inner = located(path)
        fs.invalidate_cache(inner)  # else a driver may answer from a listing that it made before
        now = signature(path)
        self._seen[path] = now, time.monotonic()
        return now

    def _check(self, path: str, now: Signature | None) -> None:
        if path in self._signatures:
            check_unchanged(path, self._signatures[path], now)

    def _descriptor(self, path: str) -> _Descriptor:
        with self._lock:
            if path not in self._open:
                self._open[path] = _Descriptor(path)
            self._open.move_to_end(path)
            if len(self._open) > self._most:
                self._open.popitem(last=False)  # closes when the last reader lets go of it
            return self._open[path]


class _Remote(io.RawIOBase):
    """A remote file whose reads are tried again at the same place."""

    def __init__(self, path: str):
        self._path = path
        fs, inner = located(path)
        self._reopen = lambda: fs.open(inner, "rb")
        self._file = retried(self._reopen, path)
        self._size, self._at = self._file.seek(0, io.SEEK_END), 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Returns the new place."""
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"{self._path}: byte {at} is before the first")
        self._at = at
        return at

    def readinto(self, buffer: memoryview) -> int:
        """Fills buffer from here and returns how many bytes there were."""
        at, size = self._at, len(buffer)

        def read() -> tuple[BinaryIO, bytes]:
            file, self._file = self._file, None  # an attempt that fails, or never returns, keeps its file to itself
            file = file or self._reopen()
            file.seek(at)
            return file, file.read(size)

        self._file, data = retried(read, self._path)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Closes the file."""
        if not self.closed and self._file is not None:
            self._file.close()
        super().close()


class _Descriptor:
    """An open file that closes with its last reference, so that no thread reads a number that was reused."""

    def __init__(self, path: str):
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self, close: Callable[[int], None] = os.close):  # bound now: at exit `os` may be empty
        if hasattr(self, "number"):
            close(self.number)


def _braces(pattern: str) -> list[str]:
    """Returns the pattern once for every choice in its braces."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    numbers = _RANGE.fullmatch(match[1])
    if numbers:
        first, last = numbers.groups()
        if int(first) > int(last):
            raise UserError(f"The range {match[0]} of {pattern!r} runs backwards; write the smaller number first.")
        width = len(first)
        choices = [str(i).zfill(width) for i in range(int(first), int(last) + 1)]
    else:
        choices = match[1].split(",")
    return [p for c in choices for p in _braces(pattern[: match.start()] + c + pattern[match.end() :])]


def _is_glob(path: str) -> bool:
    return glob.has_magic(path) and not os.path.exists(path)


def _glob(path: str) -> list[str]:
    if not is_remote(path):
        return sorted(glob.glob(path, recursive=True))
    fs, inner = located(path)
    found = retried(lambda: fs.glob(inner), path, attempt_seconds=LISTING)
    return sorted(fs.unstrip_protocol(each) for each in found)
