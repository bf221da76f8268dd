"""Which modality decides: Shapley shares of the modalities, over a data set; `explain` pictures them one by one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError, at_least
from mmjax.core.types import Array, Batch, Stream
from mmjax.evaluation.evaluator import Embed, collect
from mmjax.evaluation.parts import count_parts, keep_parts
from mmjax.evaluation.scores import Probability, Score
from mmjax.evaluation.shapley import MOST_PLAYERS, exact_shapley, permutation_shapley, shares, split


@dataclasses.dataclass(frozen=True)
class AttributionEvaluator:
    """The mean share of each modality in what a model answers.

    The score of an example is that of the class which is predicted from all it has. A score of whole modalities is
    shared out exactly (up to 4 of them); one that needs them all (a cosine) among their parts, by sampled orders, as
    MM-SHAP does, but that a text's begin and end are parts like any other: what is shared out is the difference to a
    flat picture and an empty text, of which the model is asked too. After training, `attribution.png` in the
    run's folder shows a few of the examples.

    Attributes:
      score: what is shared out; see evaluation.scores.
      batches: of the data that are looked at; None for all.
      parts: at most so many of each modality, where the score needs all modalities.
      permutations: orders of the parts.
      seed: of the orders.
      pictures: examples in attribution.png.

    Raises:
      UserError: counts below 1.

    References:
      Shapley, 1953; Parcalabescu & Frank, MM-SHAP, 2023, section 3.
    """

    score: Score = dataclasses.field(default_factory=Probability)
    batches: int | None = 1
    parts: int = 16
    permutations: int = 2
    seed: int = 0
    pictures: int = 4

    def __post_init__(self):
        counts = ("batches", "parts", "permutations", "pictures")
        at_least(1, "AttributionEvaluator", **{name: getattr(self, name) for name in counts})

    def __call__(self, embed: Embed, batches: Iterable[Batch], **extra: object) -> dict[str, float]:
        """Returns the means over the examples of 'MODALITY/shapley', which sum to 'all/score' less 'none/score'.

        'MODALITY/share', which sum to 1, are the means over those whose score depends on what they have at all, which
        a share of 'all/explained' does: not, say, one without a text that is asked for a cosine with it.

        Raises:
          UserError: the model does not give what the score is of, there are no batches, or more than 4 modalities.
        """
        del extra
        batches = itertools.islice(iter(batches), self.batches)
        first = next(batches, None)
        if first is None:
            raise UserError("attribution: the data gave no batches; it needs at least one record.")
        counts = {name: count_parts(stream, self.parts) for name, stream in first.streams.items() if self.score.whole}
        counts = counts or dict.fromkeys(first.streams, 1)
        if not self.score.whole and len(counts) > MOST_PLAYERS:
            raise UserError(f"attribution: {len(counts)} modalities; shares are exact for up to {MOST_PLAYERS}.")
        value = functools.partial(self._values, embed, list(itertools.chain([first], batches)), counts)
        players = sum(counts.values())
        if self.score.whole:
            found = permutation_shapley(value, players, self.permutations, self.seed)
        else:
            found = exact_shapley(value, players)  # [P, N]
        ends = value(np.array([[True] * players, [False] * players])).mean(axis=1)
        return _summary(split(found, counts)) | {"all/score": float(ends[0]), "none/score": float(ends[1])}

    def _values(self, embed: Embed, batches: list[Batch], counts: Mapping[str, int], keep: np.ndarray) -> np.ndarray:
        """Returns the scores [K, N] of coalitions [K, P], of the classes predicted from all."""
        everything = np.ones_like(keep[:1])
        rows = {str(number): row for number, row in enumerate([*everything, *keep])}

        def tables(batch: Batch) -> dict[str, Array]:
            return {label: self._table(embed, batch, counts, row) for label, row in rows.items()}

        whole, *rest = (found.values for found in collect(tables, batches, list(rows)).values())
        column = whole.argmax(axis=1)[:, None]  # [N, 1]
        return np.stack([np.take_along_axis(table, column, axis=1)[:, 0] for table in rest])

    def _table(self, embed: Embed, batch: Batch, counts: Mapping[str, int], keep: np.ndarray) -> jax.Array:
        keep = np.broadcast_to(keep, (batch.size, len(keep)))  # [B, P]
        batch = batch.replace(streams=keep_players(batch.streams, counts, keep, self.score.whole))
        present = {name: jnp.asarray(stream.mask).any(axis=1) for name, stream in batch.streams.items()}
        return self.score(embed(batch), present)


def keep_players(
    streams: Mapping[str, Stream], counts: Mapping[str, int], keep: Array, parts: bool
) -> dict[str, Stream]:
    """Returns the streams with only the players of keep [B, P] bool.

    Args:
      streams: of the modalities.
      counts: modality -> its players.
      keep: those of one modality after those of another.
      parts: they are parts, see `parts.keep_parts`; else whole modalities, one player each, which are missing.
    """
    kept = split(np.asarray(keep).T, counts)  # modality -> [P_m, B]
    if parts:
        return {name: keep_parts(streams[name], part.T) for name, part in kept.items()}
    return {name: streams[name].replace(mask=streams[name].mask & part.T) for name, part in kept.items()}


def _summary(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the means of modality -> [P_m, N]."""
    found = {f"{name}/shapley": float(value.sum(axis=0).mean()) for name, value in values.items()}
    counted = shares(values)
    explained = sum(counted.values()) > 0  # [N]
    found |= {f"{name}/share": float(share.sum() / max(explained.sum(), 1)) for name, share in counted.items()}
    return found | {"all/explained": float(explained.mean())}
