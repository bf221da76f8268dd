"""Packages that only some uses of mmjax need."""

from __future__ import annotations

import importlib
from types import ModuleType

from mmjax.core.errors import UserError


def optional(module: str, what: str, extra: str) -> ModuleType:
    """Returns a module of a package that mmjax's core does without.

    Args:
      module: its name.
      what: the start of the message: 'Videos are read through PyAV'.
      extra: of mmjax that installs it.

    Raises:
      UserError: it is not installed, or a library it needs is not.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise UserError(f"{what}, which cannot be imported ({error}): pip install 'mmjax[{extra}]'") from error
