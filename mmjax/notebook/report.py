"""retrieval.png: what a run finds for some of its held-out captions."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from typing import Any

import jax
import numpy as np

from mmjax.core.types import Stream
from mmjax.data.source import Source
from mmjax.data.transform import Transform
from mmjax.evaluation.retrieval import top_k
from mmjax.notebook.evaluate import batches_of, own_evaluations
from mmjax.notebook.loaded import load
from mmjax.notebook.loaded_model import LoadedModel
from mmjax.notebook.plots import retrieval_picture
from mmjax.training.experiment import Evaluation

MOST = 10_000
"""Held-out records that are searched; a larger evaluation is cut here and the title gives the number."""

SIZE = 128
"""Side of the pictures as drawn, in pixels."""


def retrieval_report(
    workdir: str | os.PathLike[str], captions: int = 12, found: int = 5, seed: int = 0
) -> list[pathlib.Path]:
    """Draws, for each retrieval evaluation of a run, some captions with the pictures found for them.

    Args:
      workdir: of the run; its newest checkpoint is used.
      captions: how many, drawn by seed.
      found: pictures shown for each.
      seed: which captions.

    Returns:
      The files written in workdir: retrieval.png, or one retrieval_NAME.png an evaluation where there are several;
      none where the run has no retrieval evaluation, or one whose gallery is not pictures. Every process must call
      this; process 0 writes.

    Raises:
      UserError: workdir is no run, its held-out data is gone, or matplotlib is not installed.
    """
    run = load(workdir)
    evaluations = {name: value for name, value in own_evaluations(run).items() if _drawable(run, value.evaluator)}
    paths = []
    for name, evaluation in evaluations.items():
        path = pathlib.Path(workdir) / ("retrieval.png" if len(evaluations) == 1 else f"retrieval_{name}.png")
        _draw(run, evaluation, path, captions, found, seed)
        paths.append(path)
    return paths


def _drawable(run: LoadedModel, evaluator: Any) -> bool:
    """Says whether the evaluator searches pictures by captions."""
    names = [getattr(evaluator, side, None) for side in ("queries", "gallery")]
    if not all(name in run.transforms for name in names):
        return False
    queries, gallery = (run.transforms[name] for name in names)
    shape, dtype = gallery.out_spec()["values"]
    return hasattr(queries, "captions") and len(shape) == 3 and shape[-1] == 3 and dtype == np.uint8


def _draw(run: LoadedModel, evaluation: Evaluation, path: pathlib.Path, captions: int, found: int, seed: int) -> None:
    """Embeds the evaluation's records, searches for some of their captions and draws what is found."""
    source, evaluator = evaluation.source, evaluation.evaluator
    queries, gallery = evaluator.queries, evaluator.gallery
    records, groups, embedded = _embed(run, evaluation)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(records))[:captions])  # [Q]
    _, ranked = top_k(embedded[queries][chosen], embedded[gallery], found)  # [Q, K]
    if jax.process_index() != 0:
        return
    shown, place = np.unique(np.append(ranked, chosen[:, None], axis=1), return_inverse=True)
    place = place.reshape(len(chosen), -1)  # [Q, K + 1]
    retrieval_picture(
        path,
        [_caption(source, run.transforms[queries], record) for record in records[chosen]],
        pictures(source, run.transforms[gallery], records[shown]),
        place[:, :-1],
        groups[ranked] == groups[chosen][:, None],
        meant=place[:, -1],
        title=f"{source.name}: {len(records):,} pictures searched by their captions, step {run.step:,}",
        credit=getattr(source, "credit", ""),
    )


def _embed(run: LoadedModel, evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Returns record number [N], group [N] and modality -> [N, E] of the first good records, on this process alone."""
    evaluator, size = evaluation.evaluator, run.batch_size
    names = (evaluator.queries, evaluator.gallery)
    parts = []
    for batch in itertools.islice(batches_of(run, evaluation.source, names, size), -(-MOST // size)):
        embeddings = run.embed(batch.streams)
        parts.append((batch.mask, batch.group, {name: np.asarray(embeddings[name]) for name in names}))
    mask, group, embedded = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
    records = np.flatnonzero(mask)
    return records, group[records], {name: values[records] for name, values in embedded.items()}


def _caption(source: Source, transform: Any, record: int) -> str:
    """Returns the caption that evaluation uses."""
    return transform.captions(source.read(int(record)))[0]


def pictures(source: Source, transform: Transform, records: np.ndarray) -> np.ndarray:
    """Returns records as pictures to look at, [N, H, W, 3] uint8: framed as the model saw them, but not as small."""
    if getattr(transform, "size", SIZE) < SIZE:
        transform = dataclasses.replace(transform, size=SIZE)
    stream: Stream = transform.collate([transform.prepare(source.read(int(record)), None) for record in records])
    return stream.values
