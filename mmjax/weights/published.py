"""Published weights: a file of another library's that a part of a model begins with."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mmjax.core.errors import UserError
from mmjax.weights import files
from mmjax.weights.rules import Table, to_ours, to_theirs


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights of a family of models, which a subclass names by its table; see `Experiment.pretrained`.

    Attributes:
      path: of a .safetensors file, or of the folder with model.safetensors and config.json; 'package:NAME/inner/path'
        for one in an installed package. In a job of several processes each reads it.
      sha256: of the file, in hexadecimal; None: any.
    """

    path: str
    sha256: str | None = None
    table: ClassVar[Table]

    def fill(self, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Returns path -> values of all the parameters in leaves (path -> array or shape).

        Raises:
          UserError: no such file, or weights that do not fit; every tensor and every parameter must find its own.
        """
        path = files.find(self.path)
        try:
            self.check(path.with_name("config.json"), leaves)
            return to_ours(self.table, files.read(path, self.sha256), leaves)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error

    def check(self, config: pathlib.Path, leaves: Mapping[str, Any]) -> None:
        """Raises UserError where the file beside the weights, if it is there, says what their shapes do not tell."""

    @classmethod
    def save(cls, leaves: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
        """Writes parameters (path -> array) as the other library's .safetensors file.

        Raises:
          UserError: a parameter that the table does not name.
        """
        files.write(path, to_theirs(cls.table, leaves))
