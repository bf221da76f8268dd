"""Distillation: a student with fewer modalities, or a smaller one, learns from a teacher beside its own task."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, at_least, one_of
from mmjax.core.types import Array, Batch, Outputs, Tokens
from mmjax.losses import distillation
from mmjax.tasks.task import Apply, TaskLoss


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The weighted sum of what a student lacks of its teacher; a part of a MultiTask, beside what has labels.

    It needs no labels. An example counts where the student has any modality and the teacher too; the two need not have
    the same, so a student of speech alone learns from a teacher of pictures and words.

    Attributes:
      teacher: of the model's `teachers`, a MultimodalModel.
      head: decoder of both models whose logits are compared.
      projection: decoder of the student (decoders.head.Head with kind 'values' and the teacher's width) that maps its
        features to the teacher's; None compares them as they are.
      logits, features, relations: weights; 0 leaves that one out.
      temperature: of the logits.

    Raises:
      UserError: all weights are 0, or a name that is not there.

    References:
      See losses.distillation; across modalities: Gupta et al., Cross Modal Distillation for Supervision Transfer, 2016.
    """

    teacher: str = "teacher"
    head: str = "label"
    projection: str | None = None
    logits: float = 1.0
    features: float = 0.0
    relations: float = 0.0
    temperature: float = 2.0

    def __post_init__(self):
        weights = {name: getattr(self, name) for name in ("logits", "features", "relations")}
        at_least(0, "Distillation", **weights)
        if not any(weights.values()):
            raise UserError("Distillation: logits, features and relations are all 0, so nothing would be learned.")

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Returns the logits and features of both, and who is there."""
        outputs = apply(params, batch.streams, rng)
        one_of(self.teacher, outputs.teachings, "Distillation.teacher")
        both = {"student": outputs, "teacher": outputs.teachings[self.teacher]}
        by_example: dict[str, Any] = {
            "present": {who: _present(each.tokens).astype(jnp.float32) for who, each in both.items()},
            "penalties": outputs.penalties,
        }
        if self.logits:
            for each in both.values():
                one_of(self.head, each.predictions, "Distillation.head")
            by_example["logits"] = {who: each.predictions[self.head] for who, each in both.items()}
        if self.features or self.relations:
            by_example["joint"] = {who: each.joint("Distillation").astype(jnp.float32) for who, each in both.items()}
        if self.features:
            by_example["projected"] = self._projected(outputs, by_example["joint"])
        return by_example, ()

    def _projected(self, outputs: Outputs, joint: dict[str, Array]) -> Array:
        if self.projection is None:
            return joint["student"]
        one_of(self.projection, outputs.predictions, "Distillation.projection")
        return outputs.predictions[self.projection]

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the weighted sum of each example."""
        del shared
        present = by_example["present"]
        mask = batch.mask & (present["student"] > 0) & (present["teacher"] > 0)  # [B]
        parts = {}
        if self.logits:
            parts["logits"] = distillation.logit_distillation(**by_example["logits"], temperature=self.temperature)
        if self.features:
            parts["features"] = distillation.feature_distillation(
                by_example["projected"], by_example["joint"]["teacher"]
            )
        if self.relations:
            parts["relations"] = distillation.relational_distillation(**by_example["joint"], mask=mask)
        values = sum(getattr(self, name) * jnp.where(mask, part, 0.0) for name, part in parts.items())
        metrics = {name: mean_where(part, mask) for name, part in parts.items()}
        return TaskLoss(values, mask, metrics).penalised(by_example["penalties"])


def _present(tokens: dict[str, Tokens]) -> jax.Array:
    """Returns [B] bool: which examples have any modality."""
    return jnp.stack([each.present for each in tokens.values()]).any(axis=0)
