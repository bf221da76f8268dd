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
    many mismatches as pairs, but for those.

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
        """Returns `accuracy`, the mean of that on `pairs` and on `mismatches`, and the area under the curve `auc`.

        Raises:
          UserError: the model has no such head, or nothing is left to judge.
        """
        names = ("pair", "is_pair", "mismatch", "is_mismatch")
        table = collect(lambda batch: self._answers(embed, batch), batches, names)
        scores = {n: table[n].values[table[f"is_{n}"].values > 0] for n in ("pair", "mismatch")}
        if not all(map(len, scores.values())):
            raise UserError("matching: the data holds no pair, or no two records of different groups in a batch.")
        right = {"pairs": np.mean(scores["pair"] > 0), "mismatches": np.mean(scores["mismatch"] <= 0)}
        labels = np.repeat([1, 0], [len(scores["pair"]), len(scores["mismatch"])])
        auc = sklearn("metrics").roc_auc_score(labels, np.concatenate(list(scores.values())))
        return {"accuracy": float(np.mean(list(right.values()))), "auc": float(auc)} | {
            name: float(value) for name, value in right.items()
        }

    def _answers(self, embed: Embed, batch: Batch) -> Mapping[str, Array]:
        """Returns the margin [B] of pairs and of mismatches, and which rows are such."""

        def margin(batch: Batch) -> Array:
            answers = embed(batch)
            one_of(self.head, answers, "matching: the head")
            return answers[self.head][:, 1] - answers[self.head][:, 0]

        def shifted(x: Array) -> Array:
            return jnp.roll(jnp.asarray(x), self.shift, axis=0)

        other = jax.tree.map(shifted, batch.streams[self.second])
        first, second = (batch.streams[name].present for name in self.modalities)
        mismatched = batch.replace(streams=batch.streams | {self.second: other})
        stranger = shifted(batch.group) != jnp.asarray(batch.group)
        return {
            "pair": margin(batch),
            "is_pair": first & second,
            "mismatch": margin(mismatched),
            "is_mismatch": first & other.present & shifted(batch.mask) & stranger,
        }
