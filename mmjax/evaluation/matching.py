"""Whether a model tells pairs from mismatched ones: accuracy and area under the curve of a matching head."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError, one_of
from mmjax.core.types import Array, Batch
from mmjax.evaluation.evaluator import Embed, collect
from mmjax.evaluation.supervised import sklearn


@dataclasses.dataclass(frozen=True)
class MatchingEvaluator:
    """Held-out pairs against the same with the second modality of another record of the batch.

    The other record is `shift` rows on, round the batch; a mismatch counts where it is of another group. There are as
    many mismatches as pairs, but for those. Of a model that embeds both modalities, the mismatches that are hardest to
    tell are judged too: with the record of the batch whose embedding is nearest.

    Attributes:
      first, second: the modalities.
      head: decoder that gives logits [B, 2], of which the second says that it is a pair.
      shift: rows; not a multiple of the batch.

    References:
      Li et al., Align before Fuse (ALBEF), 2021, section 3.2.
    """

    first: str = "image"
    second: str = "text"
    head: str = "matching"
    shift: int = 1

    @property
    def modalities(self) -> tuple[str, ...]:
        """Both."""
        return (self.first, self.second)

    def __call__(self, embed: Embed, batches: Iterable[Batch], **extra: Any) -> dict[str, float]:
        """Returns `accuracy`, the mean of that on `pairs` and on `mismatches`, the area under the curve `auc`, and
        `hard_mismatches`, the accuracy on those.

        Raises:
          UserError: the model has no such head, or nothing is left to judge.
        """
        names = ("pair", "mismatch", "hard")
        table = collect(lambda batch: self._answers(embed, batch), batches, names)
        scores = {name: table[name].values for name in names}
        if not all(len(scores[name]) for name in ("pair", "mismatch")):
            raise UserError("matching: the data holds no pair, or no two records of different groups in a batch.")
        found = {"pairs": np.mean(scores["pair"] > 0), "mismatches": np.mean(scores["mismatch"] <= 0)}
        found["accuracy"] = (found["pairs"] + found["mismatches"]) / 2
        labels = np.repeat([1, 0], [len(scores["pair"]), len(scores["mismatch"])])
        found["auc"] = sklearn("metrics").roc_auc_score(labels, np.concatenate([scores["pair"], scores["mismatch"]]))
        if len(scores["hard"]):
            found["hard_mismatches"] = np.mean(scores["hard"] <= 0)
        return {name: float(value) for name, value in found.items()}

    def _answers(self, embed: Embed, batch: Batch) -> Mapping[str, tuple[Array, Array]]:
        """Returns the margin [B] of pairs and of both kinds of mismatches, each with which rows are such."""
        answers = embed(batch)
        rows, group = jnp.arange(batch.size), jnp.asarray(batch.group)
        kinds = {"pair": rows, "mismatch": jnp.roll(rows, self.shift)}
        found = {}
        if all(name in answers for name in self.modalities):
            kinds["hard"] = self._nearest(answers, batch, group)
        for kind, order in kinds.items():
            other = jax.tree.map(lambda x, order=order: jnp.asarray(x)[order], batch.streams[self.second])
            given = answers if kind == "pair" else embed(batch.replace(streams=batch.streams | {self.second: other}))
            one_of(self.head, given, "matching: the head")
            margin = given[self.head][:, 1] - given[self.head][:, 0]
            there = batch.streams[self.first].present & other.present & jnp.asarray(batch.mask)[order]
            found[kind] = margin, there & ((group[order] != group) == (kind != "pair"))
        return {"hard": (margin, there & False)} | found

    def _nearest(self, answers: Mapping[str, Array], batch: Batch, group: Array) -> Array:
        """Returns [B]: of each first modality, the row of another group whose second one is nearest."""
        cosines = jnp.asarray(answers[self.first]) @ jnp.asarray(answers[self.second]).T  # [B, B]
        usable = batch.streams[self.second].present & jnp.asarray(batch.mask)  # [B]
        return jnp.where((group[:, None] != group) & usable, cosines, -jnp.inf).argmax(axis=1)
