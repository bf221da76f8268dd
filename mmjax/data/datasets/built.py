"""Data sets that are built once, from installed packages, beside their final folder, into ArrayRecord files."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import random
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TypeVar

import tensorflow_datasets as tfds

from mmjax.core.errors import UserError
from mmjax.data.source import Record
from mmjax.data.sources.tfds import TfdsSource

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


class BuiltSource:
    """What the sources of these data sets do alike; a subclass has a field `data_dir` and calls `_open`."""

    def _open(
        self,
        cls: type[tfds.core.DatasetBuilder],
        split: str,
        columns: Mapping[str, str] | Sequence[str],
        *,
        seconds: int = 15,
        name: str = "",
    ) -> None:
        """Builds on first use, and takes these columns of the split; name is the split's, where it is not `split`."""
        mapping = dict(columns) if isinstance(columns, Mapping) else {column: column for column in columns}
        self._records = TfdsSource(built(cls, self.data_dir, seconds), split, columns=mapping)
        self.name = f"{cls.name}:{name or split}"
        self.mapping, self.columns = mapping, tuple(mapping)
        self.classes, self.found = self._records.classes, self._records.found

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe."""
        return self._records.read(index)

    def label(self, index: int) -> str:
        """Returns 'openmoji:train[17]'."""
        return f"{self.name}[{index}]"


def _build(builder: tfds.core.DatasetBuilder) -> None:
    """Builds beside the final folder and renames, as TFDS does; of two processes at once, one copy stays."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    state = random.getstate()
    random.seed()  # TFDS names the folder it builds in by `random`: processes with one seed would share it
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is the caller's, such as `plan --json`
            builder.download_and_prepare()
    except (OSError, ValueError):  # another process renamed its finished copy into place first
        if not builder.data_path.exists():
            raise
    finally:
        random.setstate(state)
