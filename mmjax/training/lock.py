"""One job a workdir: a lock of the operating system that dies with its holder."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from mmjax.core.errors import TemporaryError, UserError

NAME = "run.lock"
"""The file in the workdir that is locked. It stays when the run ends; a file that nobody locks stops nobody."""


@contextlib.contextmanager
def hold(workdir: pathlib.Path, tell: Callable[[str], None]) -> Iterator[None]:
    """A context in which no other job trains in workdir; of a job of several processes, process 0 holds the lock.

    The lock is flock(2). The kernel gives it back when the process ends, however it ends, so a killed job blocks
    nobody. On NFS, Linux passes flock on to the server as a lock of the whole file: jobs of several hosts see one
    another, unless the mount says `nolock` or `local_lock`; there, a host that dies keeps its lock until the server
    has noticed. Lustre needs the mount option `flock`. A file system without locks is said and not refused. A child
    that is forked, and never executes a program, keeps the lock for as long as it lives.

    Args:
      workdir: exists.
      tell: is given the sentence that there are no locks here.

    Raises:
      TemporaryError: another job holds the lock; nothing was written.
      UserError: nothing can be written in workdir.
    """
    file, refusal = None, None
    if jax.process_index() == 0:
        try:
            file = _locked(workdir / NAME, tell)
        except UserError as error:
            refusal = error
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(bool(refusal)):
        refusal = refusal or TemporaryError(f"--workdir {workdir} cannot be locked; process 0 says why.")
    if refusal:
        raise refusal
    try:
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):  # a disk that is full or gone; closing gives the lock back all the same
                os.ftruncate(file, 0)
            os.close(file)


def _locked(path: pathlib.Path, tell: Callable[[str], None]) -> int:
    """Returns the open, locked file, with the holder's name in it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"--workdir {path.parent}: nothing can be written there ({error.strerror}).") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            holder = _holder(file)
            os.close(file)
            raise TemporaryError(
                f"--workdir {path.parent} is in use: {holder} trains there. Wait for it, stop it, or use another "
                "--workdir."
            ) from None
        tell(f"{path}: this file system has no locks ({error.strerror}), so nothing keeps a second job out.")
    holder = {"host": socket.gethostname(), "process": os.getpid(), "since": _now()}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(holder).encode(), 0)
    return file


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(" ", timespec="seconds")


def _holder(file: int) -> str:
    """Returns 'process 12 of host a, since ...'; it is written a moment after the lock is taken, so waits for it."""
    for _ in range(20):
        try:
            found = json.loads(os.pread(file, 4096, 0))
            return f"process {found['process']} of host {found['host']}, since {found['since']},"
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
            time.sleep(0.05)
    return "another process, which did not say its name,"
