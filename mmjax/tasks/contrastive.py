"""Contrastive alignment of two modalities: matching pairs close, all others apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.core.types import Array, Batch, Outputs
from mmjax.losses import contrastive, ring
from mmjax.tasks.task import Apply, TaskLoss

LOSSES = {
    ("softmax", "dense"): contrastive.softmax_contrastive,
    ("sigmoid", "dense"): contrastive.sigmoid_contrastive,
    ("softmax", "ring"): ring.ring_softmax_contrastive,
    ("sigmoid", "ring"): ring.ring_sigmoid_contrastive,
}


SCALARS = {"softmax": ("logit_scale",), "sigmoid": ("logit_scale", "logit_bias")}
"""What each loss learns beside the embeddings."""


@dataclasses.dataclass(frozen=True)
class Contrastive:
    """Softmax (InfoNCE, CLIP) or sigmoid (SigLIP) loss between the embeddings of two modalities.

    Examples that miss one of the two, and rows of padding, count for nothing.

    Attributes:
      first, second: the modalities.
      kind: 'softmax' or 'sigmoid'.
      form: 'dense' materialises the N x N logits; 'ring' never does, at any number of devices.
      chunk_size: rows and columns of logits alive at once in the 'ring' form; None is 1,024.

    Raises:
      UserError: an unknown kind or form.
    """

    first: str = "image"
    second: str = "text"
    kind: str = "softmax"
    form: str = "ring"
    chunk_size: int | None = None

    def __post_init__(self):
        one_of(self.kind, sorted({kind for kind, _ in LOSSES}), "Contrastive.kind")
        one_of(self.form, sorted({form for _, form in LOSSES}), "Contrastive.form")

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Returns the embeddings (first [B, E], second [B, E]), who has both and the penalties; the learned scalars."""
        for name in (self.first, self.second):
            one_of(name, batch.streams, "Contrastive: the modality")
        streams = {name: batch.streams[name] for name in (self.first, self.second)}
        outputs = apply(params, streams, rng)
        pair = tuple(outputs.embeddings[name] for name in streams)
        return {"pair": pair, "both": both(outputs, *streams), "penalties": outputs.penalties}, outputs.scalars

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the loss of every pair over all pairs of the batch."""
        for name in SCALARS[self.kind]:
            one_of(name, shared, "Contrastive: the learned scalar")
        scalars = {name: shared[name] for name in SCALARS[self.kind]}
        mask = batch.mask & (by_example["both"] > 0)  # [B]
        options = {"chunk_size": self.chunk_size} if self.form == "ring" else {}
        values = LOSSES[self.kind, self.form](*by_example["pair"], **scalars, group=batch.group, mask=mask, **options)
        return TaskLoss(values, mask, scalars).penalised(by_example["penalties"])


def both(outputs: Outputs, first: str, second: str) -> Array:
    """Returns 1 where an example has both modalities as the model saw them, without what it hid itself; [B] float32.

    No bool: what crosses between a task's stages may be differentiated.
    """
    return (outputs.tokens[first].present & outputs.tokens[second].present).astype(jnp.float32)
