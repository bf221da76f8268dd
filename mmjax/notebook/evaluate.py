"""Evaluates a loaded run: its own evaluations, or retrieval on other data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import fiddle as fdl

from mmjax.core.errors import UserError
from mmjax.core.types import Batch
from mmjax.data.captions import CaptionView
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import Source
from mmjax.data.spec import open_spec
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.training.experiment import Evaluation
from mmjax.training.sharding import check_batch

if TYPE_CHECKING:
    from mmjax.notebook.loaded import LoadedModel


def own_evaluations(run: LoadedModel) -> dict[str, Evaluation]:
    """Returns the evaluations of the run's config, built; their data must be there."""
    return fdl.build(dict(run.config.evaluations))


def evaluate_own(run: LoadedModel) -> dict[str, float]:
    """Returns 'evaluation/metric' -> value of the evaluations in the run's config, as training computes them.

    Raises:
      UserError: the config has none, or their data is not there.
    """
    evaluations = own_evaluations(run)
    if not evaluations:
        raise UserError(f"{run.directory}: the run's config has no evaluations; name data with --data SPEC.")
    metrics = {}
    for name, evaluation in evaluations.items():
        check_batch(evaluation.batch_size, run.mesh)
        batches = batches_of(run, evaluation.source, tuple(run.transforms), evaluation.batch_size)
        found = evaluation.evaluator(lambda batch: run.embed(batch.streams), batches)
        metrics |= {f"{name}/{key}": value for key, value in found.items()}
    return metrics


def evaluate_on(run: LoadedModel, data: str) -> dict[str, float]:
    """Returns 'retrieval/metric' -> value on other data, every caption of every record counting (N captions, M images).

    Raises:
      UserError: data cannot be opened, or lacks a column that the run reads.
    """
    evaluator = RetrievalEvaluator()
    source = open_spec(data, sorted({transform.column for transform in run.transforms.values()}))
    captions = CaptionView(source, run.transforms[evaluator.queries])
    found = evaluator(
        lambda batch: run.embed(batch.streams),
        batches_of(run, source, [evaluator.gallery], run.batch_size),
        captions=batches_of(run, captions, [evaluator.queries], run.batch_size),
    )
    return {f"retrieval/{key}": value for key, value in found.items()}


def batches_of(run: LoadedModel, source: Source, names: Sequence[str], batch_size: int) -> Iterable[Batch]:
    """Returns every record of source once, in order, in the modalities `names`, preprocessed as the run was."""
    share = run.config.data.max_bad_share
    transforms = {name: run.transforms[name] for name in names}
    return Pipeline(source, transforms, batch_size, max_bad_share=share).eval_batches()
