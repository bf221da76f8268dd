"""Why a loaded model answers as it does, for one example: what in each modality speaks for it, how much each counts.

Nothing here knows a modality: how an input is cut into parts follows from its shape (evaluation.parts).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import fiddle as fdl
import jax
import numpy as np

from mmjax.core.errors import UserError, listed
from mmjax.core.mesh import batch_sharding
from mmjax.core.types import Stream
from mmjax.decoders.features import Features
from mmjax.evaluation.attribution import keep_players
from mmjax.evaluation.parts import count_parts
from mmjax.evaluation.places import grid_of, spread, token_changes
from mmjax.evaluation.relevancy import Relevancy, relevancy
from mmjax.evaluation.scores import Cosine, Probability, Score, Value, evidence_of
from mmjax.evaluation.shapley import exact_shapley, permutation_shapley, shares, split
from mmjax.notebook import inputs
from mmjax.notebook.explanation import Explanation, repeated, rows_of, table
from mmjax.notebook.run_folder import setting

if TYPE_CHECKING:
    from mmjax.notebook.loaded_model import LoadedModel

MOST_PARTS = 64
"""Of a modality whose tokens are no parts of its input: samples of a recording, ..."""

Streams = Mapping[str, Stream]


def explain(run: LoadedModel, streams: Streams, score: Score | None, permutations: int, seed: int) -> Explanation:
    """Explains one example, the streams of the modalities that it has, B = 1; see `LoadedModel.explain`."""
    score = score or _usual(run, streams)
    _check(run, streams, score)
    found = _relevancy(run, score, streams)
    relevant = {name: _at_parts(run, streams, name, found.tokens[name][0]) for name in streams}
    counts = {name: relevant[name].size if score.whole else 1 for name in streams}
    players = sum(counts.values())
    ask = functools.partial(table, run, score, streams, counts, parts=score.whole)  # keep [R, P] -> [R, K]
    scores, nothing = ask(np.array([[True] * players, [False] * players]))  # [K]
    column = int(scores.argmax())

    def value(keep: np.ndarray) -> np.ndarray:
        return ask(keep)[:, column]

    phi = permutation_shapley(value, players, permutations, seed) if score.whole else exact_shapley(value, players)
    shapley = split(phi, counts)
    return Explanation(
        run,
        score,
        label=_label(run, score, column),
        column=column,
        value=float(scores[column]),
        nothing=float(nothing[column]),
        streams=streams,
        relevancy=relevant,
        attended={name: bool(found.attended[name][0]) for name in streams},
        shapley=shapley,
        shares={name: float(share) for name, share in shares(shapley).items()},
    )


def _check(run: LoadedModel, streams: Streams, score: Score) -> None:
    """Raises UserError for a score that cannot be asked of the example."""
    needed = getattr(score, "modalities", run.transforms) if score.whole else ()
    if missing := [name for name in needed if name not in streams]:
        raise UserError(
            f"explain: {score} is asked of examples that have all its modalities, and this one has no "
            f"{listed(missing)}. Give it, or another score."
        )
    try:
        hash(score)
    except TypeError:
        raise UserError(
            f"explain: the score {type(score).__name__} cannot be hashed, which says what is compiled already; make it "
            "a frozen dataclass."
        ) from None


def streams_of(run: LoadedModel, values: Mapping[str, Any]) -> dict[str, Stream]:
    """Returns the streams of what a person has of one example, B = 1; None is missing.

    Raises:
      UserError: no such modality, no value at all, or one that cannot be used.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name in values:
        run.transform(name)  # says so where there is none
    if not given:
        raise UserError(f"explain: there is no input; give at least one of {listed(run.transforms)}.")
    return {name: inputs.to_stream(run.transform(name), [value], 1) for name, value in given.items()}


def _relevancy(run: LoadedModel, score: Score, streams: Streams) -> Relevancy:
    """Returns the relevancy of the example in row 0."""
    batch = rows_of(run, streams, _least_rows(run))
    return _call(run, score, functools.partial(relevancy, run.model, score=evidence_of(score)), batch)


def _call(run: LoadedModel, key: Any, function: Callable[..., Any], streams: Streams) -> Any:
    """Returns function(params, streams) as numpy arrays; compiled once for each key."""
    if key not in run.compiled:
        run.compiled[key] = jax.jit(function)
    with jax.set_mesh(run.mesh):
        return jax.device_get(run.compiled[key](run.params, jax.device_put(dict(streams), batch_sharding(run.mesh))))


def _least_rows(run: LoadedModel) -> int:
    return run.mesh.shape["data"] * run.mesh.shape["fsdp"]


def _at_parts(run: LoadedModel, streams: Streams, name: str, tokens: np.ndarray) -> np.ndarray:
    """Returns the relevancy [N] of tokens at the parts of the input: [h, w] of a picture, [P] of a sequence."""
    stream = streams[name]
    length = stream.mask.shape[1]
    words = np.issubdtype(stream.values.dtype, np.integer) and stream.values.ndim == 2
    if words and len(tokens) in (length, length + 1):
        return tokens[len(tokens) - length :].astype(np.float64)
    if length == 1 and (grid := grid_of(len(tokens), *stream.values.shape[1:3])) and grid[0] == grid[1]:
        return tokens[len(tokens) - grid[0] * grid[1] :].reshape(grid).astype(np.float64)
    count = count_parts(stream, min(len(tokens), MOST_PARTS) if length > 1 else MOST_PARTS)
    found = spread(tokens, _changes(run, streams, name, count))
    return found if length > 1 else found.reshape(round(count**0.5), -1)


def _changes(run: LoadedModel, streams: Streams, name: str, count: int) -> np.ndarray:
    """Returns [P, N]: how far each token moves as each of count parts is left out."""
    keep = np.concatenate([np.ones((1, count), bool), ~np.eye(count, dtype=bool)])
    keep = np.pad(keep, ((0, -len(keep) % _least_rows(run)), (0, 0)), constant_values=True)  # [R, P]
    batch = {other: repeated(stream, len(keep)) for other, stream in streams.items()}
    batch |= jax.tree.map(np.asarray, keep_players({name: batch[name]}, {name: count}, keep, parts=True))
    return _call(run, name, functools.partial(token_changes, run.model, name=name), batch)[1 : count + 1]


def _usual(run: LoadedModel, streams: Streams) -> Score:
    """Returns the score of a run that has a head, or of one that embeds two modalities."""
    answers = run.embed(rows_of(run, {}, run.batch_size))
    vectors = {*run.transforms, *(name for name, each in run.model.decoders.items() if isinstance(each, Features))}
    answers = {name: value for name, value in answers.items() if np.issubdtype(value.dtype, np.floating)}  # no codes
    heads = {name: value.shape for name, value in answers.items() if name not in vectors and value.ndim == 2}
    if heads:
        name, shape = next(iter(heads.items()))
        return Probability(name, whole=name in _of_whole(run)) if shape[1] > 1 else Value(name)
    pair = [name for name in streams if name in answers]
    if len(pair) != 2:
        raise UserError(
            f"explain: the run has no head; give the two modalities of a cosine, not {listed(pair) or 'none'}."
        )
    return Cosine(*pair)


def _of_whole(run: LoadedModel) -> Sequence[str]:
    """Returns the heads that the run's task asks of whole examples alone."""
    task = setting(run.config, "task")
    return getattr(fdl.get_callable(task) if isinstance(task, fdl.Config) else task, "of_whole", ())


def _label(run: LoadedModel, score: Score, column: int) -> str:
    """Returns what is explained, in words."""
    if isinstance(score, Cosine):
        return f"cosine of {score.first} and {score.second}"
    head = getattr(score, "head", type(score).__name__)
    if not isinstance(score, Probability):
        return head
    target = (setting(run.config.data, "targets") or {}).get(head)
    classes = list((target and setting(target, "classes")) or [])
    return f"p({classes[column] if column < len(classes) else f'{head} {column}'})"
