"""Building a data set once: from installed packages, beside its final folder, into ArrayRecord files."""

from __future__ import annotations

import importlib
import logging
import os
import random
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TypeVar

import tensorflow_datasets as tfds

from mmjax.core.errors import UserError

Builder = TypeVar("Builder", bound=tfds.core.DatasetBuilder)
_log = logging.getLogger(__name__)


def packages(what: str, needed: Mapping[str, str], extra: str) -> dict[str, ModuleType]:
    """Returns module name -> module of the packages that a data set is built from.

    Args:
      what: name of the data set, for the message.
      needed: module -> pip package.
      extra: of mmjax that installs them.

    Raises:
      UserError: one is not installed.
    """
    found, missing = {}, []
    for module, package in needed.items():
        try:
            found[module] = importlib.import_module(module)
        except ImportError:
            missing.append(package)
    if missing:
        names = " and ".join(missing)
        raise UserError(f"{what} is built from pip packages and {names} is not installed: pip install 'mmjax[{extra}]'")
    return found


def built(cls: type[Builder], data_dir: str | None = None, seconds: int = 15) -> Builder:
    """Returns the built data set; builds it on first use, atomically.

    Args:
      cls: the builder's class; its `packages()` (a static method, may be left out) raises where one is missing.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.
      seconds: that building takes, about, for the message.

    Raises:
      UserError: it must be built and a package for it is not installed.
    """
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR")
    builder = cls(data_dir=data_dir, file_format="array_record")
    if builder.data_path.exists():
        return builder
    getattr(cls, "packages", lambda: None)()
    _log.warning("Building %s in %s: once, about %d seconds.", cls.__name__, builder.data_path, seconds)
    _build(builder)
    return cls(data_dir=data_dir, file_format="array_record")


def _build(builder: tfds.core.DatasetBuilder) -> None:
    """Builds beside the final folder and renames, as TFDS does; of two processes at once, one copy stays."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    state = random.getstate()
    random.seed()  # TFDS names the folder it builds in by `random`: processes with one seed would share it
    try:
        builder.download_and_prepare()
    except (OSError, ValueError):  # another process renamed its finished copy into place first
        if not builder.data_path.exists():
            raise
    finally:
        random.setstate(state)
