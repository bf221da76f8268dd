"""What is explained: one number an example, of what a model answers and of which modalities there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp

from mmjax.core.errors import one_of
from mmjax.core.types import Array, Outputs
from mmjax.evaluation.evaluator import answers

Answers = Mapping[str, Array]
"""Modality or decoder -> [B, ...], as evaluators get them."""


class Score(Protocol):
    """A table of numbers, of which one column is explained: that of the class that is predicted.

    Attributes:
      whole: it is 0 unless all its modalities are there, so that shares of whole modalities say nothing. Where these
        are not all of the model, an attribute `modalities` names them.

    It can be hashed, as a frozen dataclass can.
    """

    whole: bool

    def __call__(self, answers: Answers, present: Mapping[str, Array]) -> jax.Array:
        """Returns [B, K] float32, which Shapley shares add up to; present is modality -> [B] bool."""

    def evidence(self, answers: Answers, present: Mapping[str, Array]) -> jax.Array:
        """Returns [B, K] float32 that rises with it and has a gradient where that is saturated."""


@dataclasses.dataclass(frozen=True)
class Cosine:
    """The cosine of two embeddings [B, 1]; 0 where one of the two modalities is missing.

    Attributes:
      first, second: the modalities.

    Raises:
      UserError: the model gives no embedding of one of them.
    """

    first: str = "image"
    second: str = "text"
    whole: ClassVar[bool] = True

    @property
    def modalities(self) -> tuple[str, ...]:
        """Both."""
        return (self.first, self.second)

    def __call__(self, answers: Answers, present: Mapping[str, Array]) -> jax.Array:
        """Returns [B, 1]."""
        for name in self.modalities:
            one_of(name, answers, "Cosine: the embedding")
        cosine = jnp.sum(answers[self.first] * answers[self.second], axis=-1).astype(jnp.float32)
        return jnp.where(present[self.first] & present[self.second], cosine, 0.0)[:, None]

    evidence = __call__


@dataclasses.dataclass(frozen=True)
class Probability:
    """The probability of each class of a head [B, K]; as evidence, its logit less the mean of all.

    Attributes:
      head: decoder of the model.
      whole: the head is asked of whole examples alone (do image and text match?): 0 where a modality is missing.

    Raises:
      UserError: the model has no such head.
    """

    head: str = "label"
    whole: bool = False

    def __call__(self, answers: Answers, present: Mapping[str, Array]) -> jax.Array:
        """Returns [B, K]."""
        one_of(self.head, answers, "Probability: the head")
        return self._of_whole(jax.nn.softmax(answers[self.head].astype(jnp.float32), axis=-1), present)

    def evidence(self, answers: Answers, present: Mapping[str, Array]) -> jax.Array:
        """Returns [B, K]."""
        one_of(self.head, answers, "Probability: the head")
        logits = answers[self.head].astype(jnp.float32)
        return self._of_whole(logits - logits.mean(axis=-1, keepdims=True), present)

    def _of_whole(self, table: jax.Array, present: Mapping[str, Array]) -> jax.Array:
        there = jnp.stack(list(present.values())).all(axis=0)  # [B]
        return jnp.where(there[:, None], table, 0.0) if self.whole else table


@dataclasses.dataclass(frozen=True)
class Value:
    """What a head of values predicts [B, 1].

    Attributes:
      head: decoder of the model.

    Raises:
      UserError: the model has no such head.
    """

    head: str = "score"
    whole: ClassVar[bool] = False

    def __call__(self, answers: Answers, present: Mapping[str, Array]) -> jax.Array:
        """Returns [B, 1]."""
        one_of(self.head, answers, "Value: the head")
        return answers[self.head].astype(jnp.float32)

    evidence = __call__


def evidence_of(score: Score) -> Callable[[Outputs], jax.Array]:
    """Returns Outputs -> [B]: the evidence for the class that has most of it, for `relevancy.relevancy`."""

    def of(outputs: Outputs) -> jax.Array:
        present = {name: tokens.present for name, tokens in outputs.tokens.items()}
        table = score.evidence(answers(outputs), present)  # [B, K]
        column = table.argmax(
            axis=-1, keepdims=True
        )  # the gradient of a maximum divides by how often it is found again
        return jnp.take_along_axis(table, column, axis=-1)[:, 0]

    return of
