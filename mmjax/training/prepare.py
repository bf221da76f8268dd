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
from mmjax.training.checkpoint import InitFrom


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


def prepare_data(data: Pipeline, workdir: pathlib.Path, init_from: InitFrom | None = None) -> Pipeline:
    """Returns data with its bad-record log in workdir and a tokenizer for every text transform that has none.

    The tokenizer is the workdir's own; else that of the run whose weights init_from takes; else one trained on the
    captions of data.
    """
    inherited = init_from.preprocess() if init_from else {}
    transforms = {}
    for name, transform in data.transforms.items():
        if isinstance(transform, TextTransform) and transform.tokenizer is None:
            stored = inherited.get(name, {}).get("tokenizer")
            transform = _with_tokenizer(transform, data, stored, workdir / f"tokenizer_{name}.json")
        transforms[name] = transform
    log = workdir / f"bad_records_{jax.process_index()}.jsonl"
    return dataclasses.replace(data, transforms=transforms, bad_log=data.bad_log or log)


def _with_tokenizer(transform: TextTransform, data: Pipeline, stored: str | None, path: pathlib.Path) -> TextTransform:
    if path.exists():
        stored = path.read_text()
    if stored is not None:
        transform = transform.with_tokenizer(Tokenizer.from_json(stored))
    else:
        transform = with_trained_tokenizer(transform, data.source)
    if not path.exists():
        write_text(path, transform.tokenizer.to_json())
    return transform
