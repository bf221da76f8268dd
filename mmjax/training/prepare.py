"""Before the first step: the run's folder and its tokenizers."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from mmjax.core.errors import UserError
from mmjax.core.files import whole
from mmjax.data.captions import with_trained_tokenizer
from mmjax.data.pipeline import Pipeline
from mmjax.data.text import TextTransform
from mmjax.data.tokenizer import Tokenizer


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file at once or not at all; only process 0 writes."""
    if jax.process_index() == 0:
        with whole(path) as part:
            part.write_text(text)


def make_workdir(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Returns workdir as a folder that exists.

    Raises:
      UserError: it cannot be made.
    """
    if "://" in str(workdir):
        raise UserError(f"--workdir {workdir}: expected a folder of a mounted file system; a store is not one.")
    path = pathlib.Path(workdir).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir {workdir}: the folder cannot be made ({error.strerror}).") from error
    return path


def prepare_data(data: Pipeline, workdir: pathlib.Path, stored: Mapping[str, Any]) -> Pipeline:
    """Returns data with its bad-record log in workdir and a tokenizer for every text transform that has none.

    Args:
      data: of the config.
      workdir: of the run.
      stored: modality -> preprocessing spec that the weights came with, whose tokenizers are taken; where there is
        none, one is trained on the captions of data, which gives the same on every host.
    """
    transforms = {}
    for name, transform in data.transforms.items():
        if isinstance(transform, TextTransform) and transform.tokenizer is None:
            transform = _with_tokenizer(transform, data, stored.get(name, {}).get("tokenizer"))
        transforms[name] = transform
    log = workdir / f"bad_records_{jax.process_index()}.jsonl"
    return dataclasses.replace(data, transforms=transforms, bad_log=data.bad_log or log)


def _with_tokenizer(transform: TextTransform, data: Pipeline, stored: str | None) -> TextTransform:
    if stored is None:
        return with_trained_tokenizer(transform, data.source)
    return transform.with_tokenizer(Tokenizer.from_json(stored))
