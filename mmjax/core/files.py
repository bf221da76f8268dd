"""Files that a reader sees whole or not at all."""

from __future__ import annotations

import contextlib
import pathlib
import uuid
from collections.abc import Iterator
from typing import TypeVar

from etils import epath

_Path = TypeVar("_Path", pathlib.Path, epath.Path)


@contextlib.contextmanager
def whole(path: _Path) -> Iterator[_Path]:
    """Yields a path beside `path` to write to, which takes its name in the end; of a write that fails nothing stays."""
    part = path.parent / f"{path.name}.{uuid.uuid4().hex}.part"
    try:
        yield part
        part.replace(path)
    except BaseException:  # an interrupt too leaves no part; it is raised again
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
