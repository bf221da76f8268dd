"""Whether a checkpoint is as it was saved: a list of its files, their sizes and checksums, and what disagrees with it.

Orbax and TensorStore find most damage to their own metadata, but none to the values of arrays: a byte flipped there
is restored as another number, without a word.
"""

from __future__ import annotations

import concurrent.futures
import errno
import functools
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from mmjax.core.errors import UserError, listed
from mmjax.data.sources.remote import retried

MANIFEST = "files.json"
"""In a step's folder: {"files": {path: [bytes, CRC-32]}} of all that its items hold."""

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What reading a list of any bytes raises: bad UTF-8 or JSON, other values, an infinite size, brackets without end."""

_ATTEMPTS = 5
_LONG = 24 * 3600.0
"""Seconds that one attempt may take, of the share of a process."""

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)

_CHUNK = 1 << 20
_THREADS = 8
_LONGEST = 512


def write_manifest(folder: pathlib.Path) -> None:
    """Lists the files of the items in folder, and has the disk keep them (fsync) before anything relies on them.

    Raises:
      OSError: a file cannot be read, or the list not written.
    """
    paths = sorted(path for item in folder.iterdir() if item.is_dir() for path in item.rglob("*"))
    names = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda name: _kept(folder / name), names))
    with (folder / MANIFEST).open("w") as file:
        json.dump({"files": dict(zip(names, found, strict=True))}, file)
        file.flush()
        os.fsync(file.fileno())


def _kept(path: pathlib.Path) -> tuple[int, int]:
    with path.open("rb") as file:
        found = _sum(file)
        os.fsync(file.fileno())
    return found


def _sum(file) -> tuple[int, int]:
    """Returns (bytes, CRC-32) of an open file, read in pieces."""
    size = crc = 0
    while piece := file.read(_CHUNK):
        size, crc = size + len(piece), zlib.crc32(piece, crc)
    return size, crc


def has_manifest(folder: epath.Path) -> bool:
    """Says whether there is something to check the checkpoint by; those of older versions have none."""
    return (folder / MANIFEST).exists()


def damage(folder: epath.Path, under: str = "", share: tuple[int, int] = (0, 1)) -> str:
    """Returns what is wrong with the files of a checkpoint in a few words, '' where all are as they were saved.

    What cannot be read is tried again, and is no damage: it says something of the disk or its server, not of what is
    stored there.

    Args:
      folder: of the step.
      under: look only at files whose path begins with this.
      share: (i, n): look only at the i-th of n shares of the files.

    Raises:
      TemporaryError: a file cannot be read, of which `retried` says after how many attempts.
      UserError: a file may not be read.
    """
    try:
        return retried(
            lambda: _damage(folder, under, share), os.fspath(folder), attempts=_ATTEMPTS, attempt_seconds=_LONG
        )
    except PermissionError as error:
        raise UserError(f"{error.filename}, of a checkpoint, may not be read ({error.strerror}).") from error


def _damage(folder: epath.Path, under: str, share: tuple[int, int]) -> str:
    if not has_manifest(folder):
        return _unreadable_json(folder, under)
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        wanted = {name: (int(size), int(crc)) for name, (size, crc) in sorted(files.items()) if name.startswith(under)}
    except _MALFORMED as error:
        return f"{MANIFEST}, the list of its files, cannot be read: {type(error).__name__}: {str(error)!a}"
    if not files:
        return f"{MANIFEST}, the list of its files, names none"
    if strange := [name for name in wanted if _outside(name)]:
        return f"{MANIFEST}, the list of its files, names {strange[0]!a}, which is not in its folder"
    mine = list(wanted)[share[0] :: share[1]]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for step in (_wrong_size, _wrong_sum):  # sizes first: they cost nothing
            for found in pool.map(functools.partial(step, folder, wanted), mine):
                if found:
                    pool.shutdown(cancel_futures=True)
                    return found
    return ""


def _outside(name: str) -> bool:
    """Says whether no list names a file so: 'a//b' is no such name, and none has a NUL or half a surrogate pair."""
    odd = os.path.isabs(name) or os.pardir in name.split("/") or os.path.normpath(name) != name
    return odd or not name.isprintable()


def _wrong_size(folder: epath.Path, wanted: Mapping[str, tuple[int, int]], name: str) -> str:
    try:
        size = (folder / name).stat().length
    except OSError as error:
        return _missing(name, error)
    return "" if size == wanted[name][0] else f"{name} has {size} bytes, and was saved with {wanted[name][0]}"


def _wrong_sum(folder: epath.Path, wanted: Mapping[str, tuple[int, int]], name: str) -> str:
    try:
        with (folder / name).open("rb") as file:
            found = _sum(file)
    except OSError as error:
        return _missing(name, error)
    return "" if found == wanted[name] else f"{name} does not have the checksum that it was saved with"


def _missing(name: str, error: OSError) -> str:
    """Returns that there is no such file; raises again what says something of the disk."""
    if error.errno not in _NO_FILE:
        raise error
    return f"{name} is missing"


def _unreadable_json(folder: epath.Path, under: str) -> str:
    """Returns what is wrong with the small files of a checkpoint that has no list."""
    for name in ("meta/metadata", "metrics/metrics"):
        path = folder / name
        try:
            if name.startswith(under) and path.exists():
                json.loads(path.read_text())
        except ValueError as error:
            return f"{name} cannot be read: {error}"
    return ""


def complete_steps(directory: epath.Path) -> list[int]:
    """Returns the steps whose folders stand under their own names, newest first."""
    names = [path.name for path in directory.iterdir()] if directory.exists() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def set_aside_damaged(directory: pathlib.Path, tell: Callable[[str], None]) -> None:
    """Renames damaged checkpoints to 'STEP.damaged', so that the newest one left is whole; every process calls it.

    The processes share the work of reading: those of several hosts see the same folder. Checkpoints older than the
    newest whole one are looked at only where their metrics are concerned, which decide what is kept.

    Raises:
      UserError: there are checkpoints, and none is whole; all stay as they are.
    """
    wrong: dict[int, str] = {}
    newest = None
    for step in (steps := complete_steps(epath.Path(directory))):
        folder = epath.Path(directory) / str(step)
        if newest is None:
            found = _agreed(damage(folder, share=(jax.process_index(), jax.process_count())))
        else:
            found = _agreed(damage(folder, "metrics/"))
        if found:
            wrong[step] = found
        elif newest is None:
            newest = step
            if not has_manifest(folder):
                tell(unchecked(folder))
    if steps and newest is None:
        raise UserError(none_whole(directory, wrong))
    for step, why in wrong.items():
        aside = directory / f"{step}.damaged"
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        tell(
            f"The checkpoint {directory / str(step)} is damaged and is not used: {why}. It is now named "
            f"{aside.name}. The newest whole checkpoint is step {newest}."
        )
        _together(f"damaged {step}")
        if jax.process_index() == 0:
            (directory / str(step)).rename(aside)
    _together("set aside")


def unchecked(folder: os.PathLike[str]) -> str:
    """Returns the sentence for a checkpoint that has no list of its files."""
    return (
        f"The checkpoint {os.fspath(folder)} could not be checked for damage: it has no {MANIFEST}, as those of older "
        "versions have none."
    )


def none_whole(directory: os.PathLike[str], wrong: Mapping[int, str]) -> str:
    """Returns the sentence for a folder in which every checkpoint is damaged."""
    each = listed([f"step {step}: {why}" for step, why in wrong.items()], 5)
    return (
        f"{os.fspath(directory)}: no checkpoint is whole ({each}). Put back a copy, or begin anew in another --workdir."
    )


def _agreed(found: str) -> str:
    """Returns what the first process with something to say has found."""
    if jax.process_count() == 1:
        return found
    mine = np.zeros(_LONGEST, np.uint8)
    text = np.frombuffer(found.encode(errors="replace")[:_LONGEST], np.uint8)
    mine[: len(text)] = text
    rows = multihost_utils.process_allgather(mine)
    return next((bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows if row.any()), "")


def _together(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
