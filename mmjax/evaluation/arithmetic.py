"""Embedding arithmetic: a picture and a word together find the picture that is both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.types import Batch
from mmjax.core.words import unpack
from mmjax.evaluation.evaluator import Embed, collect, unit
from mmjax.evaluation.retrieval import RankCounts, mesh_in_use, rank_counts


class Triple(NamedTuple):
    """'waving hand' + 'dark skin tone' = 'waving hand dark skin tone'.

    Attributes:
      base, change, whole: the captions.
    """

    base: str
    change: str
    whole: str


def triples(wholes: Iterable[str], bases: Iterable[str], separator: str) -> list[Triple]:
    """Returns (A, B, 'A' + separator + 'B') for each whole that begins with a base; A is the longest there is."""
    known, found = set(bases), []
    for whole in dict.fromkeys(wholes):
        parts = whole.split(separator)
        for count in range(len(parts) - 1, 0, -1):
            base, change = (separator.join(some) for some in (parts[:count], parts[count:]))
            if base in known and change.strip():
                found.append(Triple(base, change, whole))
                break
    return found


@dataclasses.dataclass(frozen=True)
class ArithmeticEvaluator:
    """Retrieval by the sum of two embeddings, unit(x(a) + text(B)), over captions that are compositional.

    Where the caption of a record is 'A B' and another record has the caption 'A', the sum of the embedding of that
    record a (a picture) and the embedding of the text 'B' has to find the record 'A B' among all that are evaluated but
    a itself. `Evaluation.targets` has to hold the captions, as `data.text_target.TextTarget`.

    Attributes:
      modality: of a and of what is found.
      text: the modality that B is encoded by.
      target: of `Batch.targets`, the captions.
      separator: between A and B: ' ', or ': ' where names are 'A: B'.
      train_bases: a may be a record of `Evaluation.train_source` too; what is found is not.
      ks: cut-offs of recall_at_k.

    Raises:
      UserError: (called) no caption begins with another one.

    References:
      Girdhar et al., ImageBind: One Embedding Space To Bind Them All, 2023 (embedding space arithmetic).
    """

    modality: str = "image"
    text: str = "text"
    target: str = "caption"
    separator: str = " "
    train_bases: bool = False
    ks: Sequence[int] = (1, 5)

    def __post_init__(self):
        if not self.separator:
            raise UserError("ArithmeticEvaluator.separator is empty; it is what stands between A and B, such as ' '.")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The one of a."""
        return (self.modality,)

    @property
    def needs(self) -> dict[str, str]:
        """A text encoder, and records to take bases from."""
        return {"encode_text": self.text} | ({"train_batches": self.modality} if self.train_bases else {})

    def __call__(
        self,
        embed: Embed,
        batches: Iterable[Batch],
        encode_text: Callable[[Sequence[str]], np.ndarray],
        train_batches: Iterable[Batch] = (),
    ) -> dict[str, float]:
        """Embeds, adds and ranks.

        Args:
          embed: see `Embed`.
          batches: of the modality, with captions.
          encode_text: n texts -> [n, E].
          train_batches: more records to be a.

        Returns:
          `image+text/recall_at_k` of the sum, `image/recall_at_k` and `text/recall_at_k` of either part alone,
          `chance/recall_at_k`, and `triples`, how many there are.
        """
        captions, gallery = self._captioned(embed, batches)
        vectors = dict(zip(*self._captioned(embed, train_batches), strict=True)) if self.train_bases else {}
        vectors |= dict(zip(captions, gallery, strict=True))
        rows = triples(captions, vectors, self.separator)
        if not rows:
            raise UserError(
                f"arithmetic: none of {len(captions)} captions is another one's with {self.separator!r} and more words "
                f"behind it; the first are {captions[:3]}. Set ArithmeticEvaluator.separator or train_bases."
            )
        changes = list(dict.fromkeys(row.change for row in rows))
        said = dict(zip(changes, unit(encode_text(changes)), strict=True))
        a, b = (np.stack(some) for some in zip(*((vectors[row.base], said[row.change]) for row in rows), strict=True))
        queries = {f"{self.modality}+{self.text}": unit(a + b), self.modality: a, self.text: b}  # [T, E] each
        return self._metrics(queries, rows, captions, gallery)

    def _captioned(self, embed: Embed, batches: Iterable[Batch]) -> tuple[list[str], np.ndarray]:
        """Returns the captions of N records and their unit vectors [N, E]."""
        found = collect(embed, batches, (self.modality,))[self.modality]
        return unpack(found.target(self.target), f"arithmetic: the target {self.target!r}"), unit(found.values)

    def _metrics(
        self, queries: dict[str, np.ndarray], rows: Sequence[Triple], captions: Sequence[str], gallery: np.ndarray
    ) -> dict[str, float]:
        number = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
        names = np.array([number[caption] for caption in captions])  # [M]
        right = np.array([number[row.whole] for row in rows])  # [T]
        left_out = np.array([number.get(row.base, -1) for row in rows])  # [T]
        counts = {
            name: rank_counts(query, gallery, right, names, left_out=left_out, mesh=mesh_in_use())
            for name, query in queries.items()
        }
        rivals = np.array([np.sum((names != a) & (names != b)) for a, b in zip(right, left_out, strict=True)])
        counts["chance"] = RankCounts(np.zeros_like(rivals), rivals)  # all are tied
        metrics = {f"{name}/recall_at_{k}": float(np.mean(c.hit_at(k))) for name, c in counts.items() for k in self.ks}
        return metrics | {"triples": float(len(rows))}
