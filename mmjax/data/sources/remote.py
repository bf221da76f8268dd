"""Paths on remote stores: which ones they are, and the fsspec file system that reads them."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import fsspec

from mmjax.core.errors import TemporaryError, UserError, nearest

_DRIVERS = {
    **{"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"},
    **{"http": "aiohttp", "https": "aiohttp"},
}
"""Protocol -> what pip installs for it, where fsspec alone is not enough."""


_Result = TypeVar("_Result")
LISTING = 1800.0
"""Seconds that one attempt to list a folder or a pattern may take: a store answers with a thousand names at a time."""

_LONGEST_PAUSE = 30.0

_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError, UserError)
"""What another try would not mend; all else that a driver raises is taken for passing trouble of the store."""


def retried(
    call: Callable[[], _Result],
    path: str,
    *,
    attempts: int = 10,
    seconds: float = 300.0,
    attempt_seconds: float = 120.0,
    sleep: Callable[[float], None] | None = None,
    clock: Callable[[], float] | None = None,
) -> _Result:
    """Returns call(), tried again where a store fails: after about 1, 2, 4, ..., 30 seconds, half of it by chance.

    An attempt that does not return is given up and left to its thread, which may still be at it: what call uses, two
    threads must be able to use.

    Args:
      call: reads from the store, with no effect that counts twice.
      path: what is read, for the message.
      attempts: at most.
      seconds: after which no other attempt starts.
      attempt_seconds: after which an attempt counts as failed; long enough for a large file over a slow line.
      sleep, clock: None is the time module's.

    Raises:
      TemporaryError: every attempt failed.
    """
    sleep, clock = sleep or time.sleep, clock or time.monotonic
    began = clock()
    for attempt in range(1, attempts + 1):
        try:
            return _within(attempt_seconds, call)
        except _FINAL:
            raise
        except Exception as error:  # each driver has errors of its own, not all of them an OSError
            pause = min(2.0 ** (attempt - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
            spent = clock() - began
            if attempt == attempts or spent + pause > seconds:
                raise TemporaryError(
                    f"{path} cannot be read: {attempt} attempts in {spent:.0f} seconds failed, the last with "
                    f"{type(error).__name__}: {error}"
                ) from error
            sleep(pause)
    raise AssertionError("attempts is at least 1")


def _within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """Returns call() of a thread of its own; raises TimeoutError where it takes longer than seconds."""
    answers: queue.SimpleQueue[tuple[_Result | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # raised again below, in the thread that asked
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    if error is not None:
        raise error
    return answer


def is_remote(path: str) -> bool:
    """Returns whether fsspec reads this path (gs://, s3://, memory://), not the operating system."""
    return "://" in path


def located(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns (the file system of a remote path, the path in it).

    Raises:
      UserError: the protocol is unknown, or its driver is not installed.
    """
    protocol = path.partition("://")[0].rpartition("::")[2]
    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        install = f" Run: pip install {_DRIVERS[protocol]}" if protocol in _DRIVERS else ""
        raise UserError(f"{path!r} needs an fsspec driver that is not installed: {error}.{install}") from error
    except ValueError as error:
        known = fsspec.available_protocols()
        hint = "" if protocol in known else nearest(protocol, known)
        raise UserError(f"{path!r} cannot be opened: {error}.{hint}") from error
