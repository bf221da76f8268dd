"""Run a set of evaluations with given parameters: during training and alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from mmjax.core.types import Batch
from mmjax.data.pipeline import Pipeline
from mmjax.training.experiment import Evaluation
from mmjax.training.sharding import check_batch, global_batch, local_rows
from mmjax.training.trainer import Trainer


def evaluate(trainer: Trainer, params: Any, evaluations: Mapping[str, Evaluation], data: Pipeline) -> dict[str, float]:
    """Returns 'evaluation/metric' -> value of every evaluation, over all hosts.

    Args:
      trainer: whose `embed` is used.
      params: to evaluate.
      evaluations: name -> Evaluation.
      data: the training pipeline, for its preprocessing.

    Raises:
      UserError: an evaluation batch that the mesh does not divide, or data that does not fit.
    """
    metrics = {}
    for name, evaluation in evaluations.items():
        check_batch(evaluation.batch_size, trainer.mesh)
        pipeline = dataclasses.replace(data, source=evaluation.source, batch_size=evaluation.batch_size, bad_log=None)
        rows = local_rows(evaluation.batch_size, trainer.mesh)

        def embed(batch: Batch) -> dict[str, jax.Array]:
            return trainer.embed(params, batch)

        batches = (global_batch(b, evaluation.batch_size, trainer.mesh) for b in pipeline.eval_batches(rows=rows))
        found = evaluation.evaluator(embed, batches)
        metrics |= {f"{name}/{key}": value for key, value in found.items()}
    return metrics
