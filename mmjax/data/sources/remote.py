"""Paths on remote stores: which ones they are, and the fsspec file system that reads them."""

from __future__ import annotations

import fsspec

from mmjax.core.errors import UserError, nearest

_DRIVERS = {
    **{"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"},
    **{"http": "aiohttp", "https": "aiohttp"},
}
"""Protocol -> what pip installs for it, where fsspec alone is not enough."""


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
