"""What an evaluator is, and how it gets embeddings: batches in, a dict of numbers out.

An evaluator is a dataclass of plain values (so that a config can hold it) which is called with
`embed`, a function from a `Batch` to modality -> [B, E], and the batches. Training calls evaluators on a schedule,
`python -m mmjax evaluate` calls them alone. What one needs beyond that (every caption, a text encoder, a training set)
is a keyword argument of its call, which it names in `needs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.types import Array, Batch, Outputs
from mmjax.evaluation.retrieval import mesh_in_use, retrieval

Embed = Callable[[Batch], Mapping[str, Array]]
"""Batch -> modality -> [B, E]: this host's rows, or a global array of which this host holds its rows."""


class Evaluator(Protocol):
    """Anything that turns embeddings into numbers.

    Attributes:
      modalities: (may be left out) what the batches must hold; all of the run's by default.
      needs: (may be left out) keyword of the call -> the modality that it is of.
        `captions`: batches of every caption of the data, and then the batches come without that modality; left out of
        the call where no record has several captions.
        `encode_text`: a function from texts to embeddings [n, E].
        `train_batches`: batches of `Evaluation.train_source`.
    """

    def __call__(self, embed: Embed, batches: Iterable[Batch], **extra: Any) -> dict[str, float]:
        """Returns metric name -> value."""


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The embeddings of one modality over a whole data set, padding and missing rows removed.

    Attributes:
      values: [N, E] float32; whole numbers as they are.
      group: [N] int; rows of one group belong together.
      targets: name -> [N, ...].
    """

    values: np.ndarray
    group: np.ndarray
    targets: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def target(self, name: str) -> np.ndarray:
        """Returns targets[name].

        Raises:
          UserError: there is none of that name.
        """
        if name not in self.targets:
            raise UserError(
                f"evaluation: the batches have no target {name!r}.{nearest(name, self.targets)} "
                f"They have: {listed(self.targets) or 'none'}."
            )
        return self.targets[name]


def answers(outputs: Outputs) -> dict[str, Array]:
    """Returns name -> [B, ...]: the embedding of each modality, and what each decoder predicts.

    Raises:
      UserError: a decoder has the name of a modality.
    """
    if shared := set(outputs.embeddings) & set(outputs.predictions):
        raise UserError(f"model.decoders: {listed(shared)} is the name of a modality too; give the decoder another.")
    arrays = {name: value for name, value in outputs.predictions.items() if not isinstance(value, dict)}
    return outputs.embeddings | arrays


def unit(x: Array) -> np.ndarray:
    """Returns x float32 over its norm along the last axis; a zero vector stays zero."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def collect(
    embed: Callable[[Batch], Mapping[str, Array | tuple[Array, Array]]], batches: Iterable[Batch], names: Sequence[str]
) -> dict[str, Embedded]:
    """Embeds every batch and gathers the rows that exist, over all hosts.

    Args:
      embed: see `Embed`; called once a batch. Of what only some rows have, it gives (values, mask [B] bool).
      batches: with padding; every host must have the same number of rows.
      names: the modalities to keep.

    Returns:
      modality -> Embedded, each row once, in the order of the batches, host by host.

    Raises:
      UserError: there are no batches, or embed does not give one of the modalities.
    """
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for batch in batches:
        embeddings = embed(batch)
        for name in names:
            parts[name].append(_rows(name, embeddings, batch))
    if not all(parts.values()):
        raise UserError("evaluation: the data gave no batches; it needs at least one record.")
    return {name: _join(rows) for name, rows in parts.items()}


def host_rows(x: Array) -> np.ndarray:
    """Returns the rows of x that this host holds, in order; all of them where x is on this host alone."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    return np.concatenate([np.asarray(shard.data) for shard in _row_shards(x)])


def owned_rows(x: Array) -> np.ndarray:
    """Returns [rows] bool for `host_rows(x)`: of the hosts that hold a row, one has True."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.ones(len(x), bool)
    return np.concatenate([np.full(len(shard.data), shard.replica_id == 0) for shard in _row_shards(x)])


def _row_shards(x: jax.Array) -> list[jax.Shard]:
    """One shard for each span of rows on this host, in order; of copies the first."""
    copies = sorted(x.addressable_shards, key=lambda shard: -shard.replica_id)
    spans = {shard.index[0].start or 0: shard for shard in copies}
    return [spans[start] for start in sorted(spans)]


def _rows(name: str, embeddings: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """One modality of one batch, with a mask of the rows that hold it."""
    if name not in embeddings:
        raise UserError(
            f"evaluation: the model gives no embedding of {name!r}.{nearest(name, embeddings)} "
            f"It gives: {listed(embeddings) or 'none'}."
        )
    found = embeddings[name]
    given, exists = found if isinstance(found, tuple) else (found, batch.mask)
    mask = host_rows(batch.mask) & owned_rows(batch.mask) & host_rows(exists)
    if name in batch.streams:
        mask = mask & host_rows(batch.streams[name].mask).any(axis=1)
    values = host_rows(given)
    values = values if np.issubdtype(values.dtype, np.integer) else values.astype(np.float32)
    targets = {key: host_rows(value) for key, value in batch.targets.items()}
    return {"values": values, "group": host_rows(batch.group), "mask": mask, "targets": targets}


def _join(rows: list[dict[str, Any]]) -> Embedded:
    """Batches -> one table over all hosts without its padding."""
    table = jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
    if jax.process_count() > 1:
        table = jax.tree.map(np.asarray, multihost_utils.process_allgather(table, tiled=True))
    table = jax.tree.map(lambda x: x[table["mask"]], table)
    return Embedded(table["values"], table["group"], table["targets"])


@dataclasses.dataclass(frozen=True)
class RetrievalEvaluator:
    """Retrieval both ways between two modalities; under `jax.set_mesh` the ranking is cut over all its devices.

    Attributes:
      queries: one modality, by custom the one a person types.
      gallery: the other.
      ks: cut-offs of recall_at_k.
      chunk: rows in one block of scores.
    """

    queries: str = "text"
    gallery: str = "image"
    ks: Sequence[int] = (1, 5, 10)
    chunk: int = 1024

    @property
    def modalities(self) -> tuple[str, ...]:
        """Both."""
        return (self.gallery, self.queries)

    @property
    def needs(self) -> dict[str, str]:
        """Every caption, where records have several."""
        return {"captions": self.queries}

    def __call__(
        self, embed: Embed, batches: Iterable[Batch], captions: Iterable[Batch] | None = None
    ) -> dict[str, float]:
        """Embeds and ranks.

        Args:
          embed: see `Embed`.
          batches: both modalities, or the gallery alone where captions are given.
          captions: batches of the query modality with every caption of every record, `Batch.group` the group of its
            record; None takes the queries from batches, one a record.

        Returns:
          See `retrieval.retrieval`; records that lack one of the modalities are left out on both sides.
        """
        if captions is None:
            found = collect(embed, batches, (self.gallery, self.queries))
        else:
            found = collect(embed, batches, (self.gallery,)) | collect(embed, captions, (self.queries,))
        gallery, queries = found[self.gallery], found[self.queries]
        return retrieval(
            gallery.values,
            queries.values,
            gallery.group,
            queries.group,
            names=(self.gallery, self.queries),
            a_mask=np.isin(gallery.group, queries.group),
            b_mask=np.isin(queries.group, gallery.group),
            ks=tuple(self.ks),
            chunk=self.chunk,
            mesh=mesh_in_use(),
        )
