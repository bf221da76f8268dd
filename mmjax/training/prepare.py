"""Before the first step: the run's folder, its config and its tokenizer."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import jax

from mmjax.core.errors import UserError
from mmjax.data.captions import with_trained_tokenizer
from mmjax.data.pipeline import Pipeline
from mmjax.data.text import TextTransform
from mmjax.data.tokenizer import Tokenizer


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file at once or not at all; only process 0 writes."""
    if jax.process_index() == 0:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(path)


def make_workdir(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Returns workdir as a folder that exists.

    Raises:
      UserError: it cannot be made.
    """
    path = pathlib.Path(workdir).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir {workdir}: the folder cannot be made ({error.strerror}).") from error
    return path


def prepare_data(data: Pipeline, workdir: pathlib.Path) -> Pipeline:
    """Returns data with its bad-record log in workdir and a tokenizer for every text transform that has none.

    A tokenizer is trained on the training captions the first time, and read back from workdir after that.
    """
    transforms = {
        name: _with_tokenizer(transform, data, workdir / f"tokenizer_{name}.json")
        if isinstance(transform, TextTransform)
        else transform
        for name, transform in data.transforms.items()
    }
    log = workdir / f"bad_records_{jax.process_index()}.jsonl"
    return dataclasses.replace(data, transforms=transforms, bad_log=data.bad_log or log)


def _with_tokenizer(transform: TextTransform, data: Pipeline, path: pathlib.Path) -> TextTransform:
    if transform.tokenizer is not None:
        return transform
    if path.exists():
        return transform.with_tokenizer(Tokenizer.from_json(path.read_text()))
    fitted = with_trained_tokenizer(transform, data.source)
    write_text(path, fitted.tokenizer.to_json())
    return fitted
