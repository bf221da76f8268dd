"""Runs the evaluations of a config: during training with its parameters, alone with those of a checkpoint.

An evaluator is given what its `needs` name; `MAKERS` says how each such thing is made, for any evaluator.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.types import Batch
from mmjax.data.captions import CaptionView, Texts, caption_counts
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import Source
from mmjax.data.text import TextTransform
from mmjax.data.transform import Transform
from mmjax.evaluation.evaluator import Embed, collect
from mmjax.training.experiment import Evaluation
from mmjax.training.sharding import check_batch, global_batch, local_rows


def bind(
    evaluations: Mapping[str, Evaluation],
    transforms: Mapping[str, Transform],
    pipeline: Callable[..., Pipeline],
    mesh: Mesh,
) -> dict[str, BoundEvaluation]:
    """Binds evaluations to a run; see BoundEvaluation. What can be wrong with them is found here."""
    return {name: BoundEvaluation(name, each, transforms, pipeline, mesh) for name, each in evaluations.items()}


def encoded(model: Any, transforms: Mapping[str, Transform]) -> dict[str, Transform]:
    """Returns the transforms of what the model itself encodes, without what its teachers alone see."""
    taught = {name for teacher in getattr(model, "teachers", {}).values() for name in teacher.modalities}
    unseen = taught - set(getattr(model, "encoders", taught))
    return {name: transform for name, transform in transforms.items() if name not in unseen}


def evaluate(evaluations: Mapping[str, BoundEvaluation], embed: Embed) -> dict[str, float]:
    """Returns 'evaluation/metric' -> value of every evaluation, over all hosts; embed gets global batches."""
    found = {name: evaluation(embed) for name, evaluation in evaluations.items()}
    return {f"{name}/{key}": value for name, metrics in found.items() for key, value in metrics.items()}


@dataclasses.dataclass(eq=False)
class BoundEvaluation:
    """An evaluation with the preprocessing and the mesh of a run, ready to be called with `embed`.

    Attributes:
      name: in the config.
      evaluation: what is evaluated.
      transforms: modality -> Transform of the run.
      pipeline: makes a Pipeline of the keywords source, transforms, targets and batch_size.
      mesh: that batches are cut over.

    Raises:
      UserError: the mesh does not divide the batch, a source lacks a column, or the evaluator needs what is not there.
    """

    name: str
    evaluation: Evaluation
    transforms: Mapping[str, Transform]
    pipeline: Callable[..., Pipeline]
    mesh: Mesh

    def __post_init__(self) -> None:
        evaluator = self.evaluation.evaluator
        self.modalities: tuple[str, ...] = tuple(getattr(evaluator, "modalities", self.transforms))
        self.needs: Mapping[str, str] = getattr(evaluator, "needs", {})
        check_batch(self.evaluation.batch_size, self.mesh)
        for need, modality in self.needs.items():
            self._transform(modality)
            if need not in MAKERS:
                raise UserError(
                    f"evaluation {self.name!r}: {type(evaluator).__name__} needs {need!r}, which nothing makes."
                    f"{nearest(need, MAKERS)} There are {listed(MAKERS)}."
                )
        if "train_batches" in self.needs and self.evaluation.train_source is None:
            raise UserError(
                f"evaluation {self.name!r}: {type(evaluator).__name__} learns from data of its own; name it in "
                "Evaluation.train_source."
            )
        for source in (self.evaluation.source, self.evaluation.train_source):
            if source is not None:
                self._pipeline(source, self.modalities)

    def __call__(self, embed: Embed) -> dict[str, float]:
        """Returns metric -> value over all hosts."""
        made = {need: MAKERS[need](self, embed, modality) for need, modality in self.needs.items()}
        extra = {need: value for need, value in made.items() if value is not None}
        apart = self.needs["captions"] if "captions" in extra else None
        names = [name for name in self.modalities if name != apart]
        return self.evaluation.evaluator(embed, self.batches(self.evaluation.source, names), **extra)

    def batches(self, source: Source, names: Iterable[str]) -> Iterable[Batch]:
        """Returns every record of source once, in the modalities `names` and with the targets, as global arrays."""
        return self._global(self._pipeline(source, names))

    def captions(self, embed: Embed, modality: str) -> Iterable[Batch] | None:
        """Returns batches of every caption; None where no record has several, or the modality holds no captions."""
        if not hasattr(self.transforms[modality], "captions") or not self._captions.several:
            return None
        return self._global(self._pipeline(self._captions, [modality], targets={}))

    def encode_text(self, embed: Embed, modality: str) -> Callable[[Sequence[str]], np.ndarray]:
        """Returns a function from n texts to their embeddings [n, E] float32, the same on every host."""

        def encode(texts: Sequence[str]) -> np.ndarray:
            pipeline = self._pipeline(Texts(texts, self._transform(modality).column), [modality], targets={})
            found = collect(embed, self._global(pipeline), [modality])[modality]
            if len(found.group) < len(texts):
                raise UserError(f"evaluation {self.name!r}: not every text can be encoded. {pipeline.bad.sentence()}")
            return found.values[np.argsort(found.group)]

        return encode

    def train_batches(self, embed: Embed, modality: str) -> Iterable[Batch]:
        """Returns batches of the data that is learned from, with what the evaluator's other batches hold."""
        return self.batches(self.evaluation.train_source, self.modalities)

    @functools.cached_property
    def _captions(self) -> CaptionView:
        """Made once, as every record is read for it: by each process its share."""
        source, transform = self.evaluation.source, self._transform(self.needs["captions"])
        return CaptionView(source, transform, _counts(source, transform))

    def _pipeline(self, source: Source, names: Iterable[str], targets: Mapping[str, Any] | None = None) -> Pipeline:
        return self.pipeline(
            source=source,
            transforms={name: self._transform(name) for name in names},
            targets=self.evaluation.targets if targets is None else targets,
            batch_size=self.evaluation.batch_size,
        )

    def _global(self, pipeline: Pipeline) -> Iterable[Batch]:
        size = pipeline.batch_size
        batches = pipeline.eval_batches(rows=local_rows(size, self.mesh))
        return (global_batch(batch, size, self.mesh) for batch in batches)

    def _transform(self, modality: str) -> Transform:
        if modality not in self.transforms:
            raise UserError(
                f"evaluation {self.name!r}: the run has no modality {modality!r}.{nearest(modality, self.transforms)} "
                f"It has {listed(self.transforms)}."
            )
        return self.transforms[modality]


def _counts(source: Source, transform: TextTransform) -> np.ndarray:
    """Returns [N] int, the captions of each record of source; each process reads a run of records, and tells all."""
    processes = jax.process_count()
    starts = [len(source) * number // processes for number in range(processes + 1)]
    mine = range(starts[jax.process_index()], starts[jax.process_index() + 1])
    counts = caption_counts(source, transform, mine)
    if processes == 1:
        return counts
    padded = np.zeros(-(-len(source) // processes), np.int32)
    padded[: len(counts)] = counts
    rows = multihost_utils.process_allgather(padded)  # [processes, longest share]
    return np.concatenate([row[:size] for row, size in zip(rows, np.diff(starts), strict=True)])


MAKERS: Mapping[str, Callable[[BoundEvaluation, Embed, str], Any]] = {
    "captions": BoundEvaluation.captions,
    "encode_text": BoundEvaluation.encode_text,
    "train_batches": BoundEvaluation.train_batches,
}
"""What an evaluator can need: keyword -> (evaluation, embed, modality) -> its value; None leaves it out of the call."""
