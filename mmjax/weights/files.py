"""Files of published weights: safetensors alone, which hold arrays and nothing that could run."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, nearest, nearest_beside
from mmjax.core.optional import optional
from mmjax.core.packages import located

NAME = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def find(name: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the .safetensors file that is meant: by its path, or by that of the folder with a model.safetensors.

    Args:
      name: a path, or 'package:NAME/inner/path' of an installed package.

    Raises:
      UserError: there is none, or it is a pickle.
    """
    path = located(name)
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir())
        if NAME not in inside:
            pickles = [child for child in inside if child.endswith(PICKLES)]
            what = f"only {pickles[0]}, a pickle, which could run code as it is read" if pickles else f"no {NAME}"
            raise UserError(f"weights: the folder {name} has {what}. Expected {NAME}.{nearest(NAME, inside)}")
        return path / NAME
    if path.suffix in PICKLES:
        raise UserError(
            f"weights: {name} is a pickle, which could run code as it is read. Expected a .safetensors file."
        )
    if not path.is_file():
        raise UserError(f"weights: there is no file {name}.{nearest_beside(path)}")
    return path


def read(path: pathlib.Path, sha256: str | None = None) -> dict[str, np.ndarray]:
    """Returns name -> tensor.

    Args:
      path: of a .safetensors file.
      sha256: of its bytes, in hexadecimal; None: any.

    Raises:
      UserError: another file than sha256 says, or no safetensors.
    """
    if sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise UserError(f"weights: {path} is another file than expected: its SHA-256 is {found}, not {sha256}.")
    library = _safetensors()
    try:
        return library.load_file(path)
    except Exception as error:  # SafetensorError, and what NumPy says of a type that it has not
        raise UserError(f"weights: {path} cannot be read as safetensors ({error}).") from error


def write(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes name -> tensor as a .safetensors file that other libraries read."""
    contents: dict[str, Any] = dict(tensors)
    _safetensors().save_file(contents, path, metadata={"format": "pt"})  # transformers asks for one that it knows


def _safetensors() -> ModuleType:
    return optional("safetensors.numpy", "Published weights are read through safetensors", "weights")
