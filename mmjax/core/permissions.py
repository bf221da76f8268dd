"""What others may do with the files that a process makes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def safe_permissions() -> Iterator[None]:
    """A context in which nobody but the owner may change the files that this process makes; the umask is else kept.

    The umask is the whole process's: threads in the background are bound by it too.
    """
    given = os.umask(0o022)
    os.umask(given | 0o022)
    try:
        yield
    finally:
        os.umask(given)
