"""Errors as sentences: what was wrong, where, what was expected, the nearest match."""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Iterable

from mmjax.core.secrets import masked


class UserError(Exception):
    """A mistake in a config, a command or the data: shown to the user as its message alone, without a traceback.

    Credentials in the message are masked.
    """

    def __init__(self, message: str):
        super().__init__(masked(message))


class TemporaryError(UserError):
    """Trouble that may pass by itself (of a store, of a lock that a dead host still holds): worth another start."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns ' Did you mean ...?' with the closest valid name, or '' where none is close."""
    found = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""


def nearest_beside(path: pathlib.Path) -> str:
    """Returns `nearest` of a file's name among what lies in its folder."""
    return nearest(path.name, [found.name for found in path.parent.iterdir()] if path.parent.is_dir() else [])


def one_of(value: str, valid: Iterable[str], what: str) -> None:
    """Raises UserError where value is none of the valid names; `what` says whose value it is."""
    valid = list(valid)
    if value not in valid:
        raise UserError(f"{what}: {value!r} is unknown.{nearest(value, valid)} Expected one of: {listed(valid, 40)}.")


def at_least(low: float, where: str, **values: float | None) -> None:
    """Raises UserError for a value below low; None is left alone."""
    for name, value in values.items():
        if value is not None and value < low:
            raise UserError(f"{where}.{name}={value} must be at least {low}.")


def listed(names: Iterable[str], most: int = 20) -> str:
    """Returns 'a, b, c, ... (7 more)' for a message."""
    names = list(names)
    more = f", ... ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(names[:most]) + more
