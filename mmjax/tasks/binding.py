"""Any-to-any binding: several pairs of modalities in one space, each through the examples that have both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, at_least, listed, nearest, one_of
from mmjax.core.subsets import subset_name
from mmjax.core.types import Array, Batch
from mmjax.tasks.contrastive import SCALARS, Contrastive, both
from mmjax.tasks.multi import weighted_sum
from mmjax.tasks.task import Apply, TaskLoss


def anchored(anchor: str, others: Sequence[str]) -> list[str]:
    """Returns the pairs of an anchor with each of the others: 'image+text', 'image+audio', ..."""
    return [subset_name((anchor, other)) for other in others]


@dataclasses.dataclass(frozen=True)
class Binding:
    """The weighted sum of the contrastive losses of several pairs, each a mean over the rows that have both.

    Modalities that are in no pair together are bound through those that they are paired with: text and audio through
    an anchor image, where the pairs are `anchored("image", ("text", "audio"))`. A row takes part in every pair that it
    has, and is in nobody's sum in the others; a pair that no row of a batch has adds 0. One pair is `Contrastive`.

    Each pair has a temperature (and a bias, if 'sigmoid') of its own: `fusion.coordinated.Coordinated.pairs` are to be
    the same names. An anchor stays as it is with `Optimizer.frozen`.

    Attributes:
      pairs: 'FIRST+SECOND', two modalities each.
      weights: pair -> fixed weight; 1 where there is none.
      kind, form, chunk_size: as in `tasks.contrastive.Contrastive`.
      tasks: (once made) pair -> its task.

    Raises:
      UserError: no pair, a name that is no pair, one that is there twice, a weight of none, an unknown kind or form; or
        (called) a batch without a modality, or a fusion that learns no temperature for a pair.

    References:
      Girdhar et al., ImageBind: One Embedding Space To Bind Them All, 2023, section 3.2, equation 1.
    """

    pairs: Sequence[str] = ("image+text",)
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    kind: str = "softmax"
    form: str = "ring"
    chunk_size: int | None = None

    def __post_init__(self):
        if not self.pairs or isinstance(self.pairs, str):
            raise UserError(f"Binding.pairs={self.pairs!r} must be a list of at least one pair, such as 'image+text'.")
        for pair in self.pairs:
            names = pair.split("+")
            if len(names) != 2 or not all(names) or names[0] == names[1]:
                raise UserError(f"Binding.pairs: {pair!r} must be two modalities with a + between them.")
        if len({frozenset(pair.split("+")) for pair in self.pairs}) < len(self.pairs):
            raise UserError(f"Binding.pairs: {listed(self.pairs)} has a pair twice.")
        for pair in self.weights:
            one_of(pair, self.pairs, "Binding.weights")
        at_least(0, "Binding.weights", **self.weights)
        object.__setattr__(self, "tasks", self._tasks())

    def _tasks(self) -> dict[str, Contrastive]:
        options = {"kind": self.kind, "form": self.form, "chunk_size": self.chunk_size}
        return {pair: Contrastive(*pair.split("+"), **options) for pair in self.pairs}

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Returns the embeddings (modality -> [B, E]), who has both of each pair and the penalties; the scalars."""
        names = dict.fromkeys(name for pair in self.pairs for name in pair.split("+"))
        for name in names:
            one_of(name, batch.streams, "Binding: the modality")
        outputs = apply(params, {name: batch.streams[name] for name in names}, rng)
        embeddings = {name: outputs.embeddings[name] for name in names}
        found = {pair: both(outputs, *pair.split("+")) for pair in self.pairs}  # pair -> [B]
        return {"embeddings": embeddings, "both": found, "penalties": outputs.penalties}, outputs.scalars

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the sum, spread over the examples so that its mean is the sum of the pairs' means."""
        parts = {}
        for pair, task in self.tasks.items():
            vectors = tuple(by_example["embeddings"][name] for name in (task.first, task.second))
            own = {"pair": vectors, "both": by_example["both"][pair], "penalties": {}}
            with jax.named_scope(f"objective_{pair.replace('+', '_')}"):
                part = task.loss(own, self._scalars(shared, pair), batch)
            rows = jnp.sum(part.mask.astype(jnp.float32))
            parts[pair] = part.replace(metrics=part.metrics | {"rows": rows})
        weights = {pair: jnp.float32(self.weights.get(pair, 1.0)) for pair in self.pairs}
        return weighted_sum(parts, weights).penalised(by_example["penalties"])

    def _scalars(self, shared: Mapping[str, Array], pair: str) -> dict[str, Array]:
        """Returns the pair's own scalars by the names that `Contrastive` knows."""
        names = {name: f"{name}/{pair}" for name in SCALARS[self.kind]}
        for name in names.values():
            if name not in shared:
                raise UserError(
                    f"Binding: the fusion learns no scalar {name!r}.{nearest(name, shared)} Give it the pairs of the "
                    f"task: model.fusion.pairs={list(self.pairs)}. It learns {listed(shared) or 'none'}."
                )
        return {name: shared[own] for name, own in names.items()}
