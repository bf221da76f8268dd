"""What `LoadedModel.explain` returns: relevancies, shares and curves of one example, and its picture."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np

from mmjax.core.errors import UserError, listed
from mmjax.core.types import Stream
from mmjax.evaluation.attribution import keep_players
from mmjax.evaluation.curves import Curve, deletion, insertion
from mmjax.evaluation.parts import existing
from mmjax.evaluation.scores import Score
from mmjax.notebook import inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmjax.notebook.loaded_model import LoadedModel


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Why one example has its score.

    Attributes:
      run: that answers.
      score: what is explained; `label` is it in words ('p(walking)'), `column` its place in the score's table.
      value: the score with all of the example, `nothing` with none of it: its modalities missing, or, where the score
        needs them, a flat picture and an empty sequence.
      streams: modality -> the example as the model has it, B = 1; only those that it has.
      relevancy: modality -> [h, w] of a picture, [P] of a sequence; float64 >= 0.
      attended: modality -> False where it is gradient x input, as no attention led to the score.
      shapley: modality -> [P] float64 of its parts, or [1] where whole modalities were shared out; they sum to value -
        nothing.
      shares: modality -> how much it counts, whatever its sign; they sum to 1.
    """

    run: LoadedModel = dataclasses.field(repr=False)
    score: Score
    label: str
    column: int
    value: float
    nothing: float
    streams: Mapping[str, Stream] = dataclasses.field(repr=False)
    relevancy: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    attended: Mapping[str, bool]
    shapley: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    shares: Mapping[str, float]

    def figure(self, title: str = "", path: str | os.PathLike[str] | None = None) -> Figure:
        """Draws the example with what speaks for its score, and the shares; see `why_plots.why_picture`."""
        from mmjax.notebook.why_plots import why_picture

        return why_picture([self], title=title, path=path)

    def _repr_png_(self) -> bytes:
        """The picture that a notebook shows."""
        return self.figure()._repr_png_()

    def curves(self, name: str, order: np.ndarray | None = None, steps: int = 8) -> tuple[Curve, Curve]:
        """Returns how the score falls as the parts of a modality are left out, and rises as they are put in.

        Args:
          name: of the modality; the others stay.
          order: as many numbers as parts, the greatest first; by default the relevancy.
          steps: from all parts to none.

        Raises:
          UserError: the example has no such modality, or another number of parts.
        """
        if name not in self.streams:
            raise UserError(f"curves: the example has no {name!r}; it has {listed(self.streams)}.")
        order = (self.relevancy[name] if order is None else np.asarray(order)).ravel()
        if len(order) != self.relevancy[name].size:
            raise UserError(
                f"curves: the order has {len(order)} numbers, but {name!r} has {self.relevancy[name].size} parts."
            )
        there = np.asarray(existing(self.streams[name], len(order)))[0]

        def value(keep: np.ndarray) -> np.ndarray:
            return table(self.run, self.score, self.streams, {name: len(order)}, keep, parts=True)[:, self.column]

        return deletion(value, order, there, steps), insertion(value, order, there, steps)


def table(
    run: LoadedModel,
    score: Score,
    streams: Mapping[str, Stream],
    counts: Mapping[str, int],
    keep: np.ndarray,
    parts: bool,
) -> np.ndarray:
    """Returns the score's table [R, K] of one example with, in each row, the players of keep [R, P] alone.

    Args:
      run, score: what answers, and what is made of it.
      streams: of the example, B = 1; other modalities of the run are missing.
      counts: modality -> its players; a modality that is not named stays.
      keep, parts: see attribution.keep_players.
    """
    size, found = run.batch_size, []
    batch = rows_of(run, streams, size)
    for first in range(0, len(keep), size):
        rows = keep[first : first + size]
        filled = np.pad(rows, ((0, size - len(rows)), (0, 0)))  # [B, P]
        kept = keep_players({name: batch[name] for name in counts}, counts, filled, parts)
        given = batch | jax.tree.map(np.asarray, kept)
        answers = {name: np.asarray(value, np.float32) for name, value in run.embed(given).items()}
        present = {name: stream.present for name, stream in given.items()}
        found.append(np.asarray(score(answers, present))[: len(rows)])
    return np.concatenate(found)


def rows_of(run: LoadedModel, streams: Mapping[str, Stream], rows: int) -> dict[str, Stream]:
    """Returns the streams of one example that many times, with the modalities of the run that it lacks missing."""
    lacking = {name: inputs.to_stream(each, [], rows) for name, each in run.transforms.items() if name not in streams}
    return lacking | {name: repeated(stream, rows) for name, stream in streams.items()}


def repeated(stream: Stream, rows: int) -> Stream:
    """Returns a stream of one example, that many times."""
    return jax.tree.map(lambda leaf: np.repeat(leaf, rows, axis=0), stream)
