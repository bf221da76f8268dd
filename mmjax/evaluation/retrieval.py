"""Retrieval from one modality to another: recall at k, median rank, and a streaming top-k.

The whole [N, M] score matrix never exists (see `blocks`), so that a million queries against a million items need the
two embedding tables and one block of scores.

Ties: items that score within rounding of the best right item are tied with it. A tie is resolved at random, in
expectation: `recall_at_k` is the probability of a hit, the rank is the mean rank. A model that maps everything to one
point therefore scores exactly chance, and no order of the rows can help or hurt. A NaN counts against the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from mmjax.core.errors import UserError
from mmjax.core.types import Array
from mmjax.evaluation.blocks import best_items, count_rivals


class RankCounts(NamedTuple):
    """Per query, how many wrong items beat or equal its best right item.

    Attributes:
      higher: [N] int, wrong items that score higher.
      tied: [N] int, wrong items that score the same within rounding.
    """

    higher: np.ndarray
    tied: np.ndarray

    @property
    def rank(self) -> np.ndarray:
        """[N] float64: the 1-based rank of the best right item, the mean over the orders of its ties."""
        return 1.0 + self.higher + 0.5 * self.tied

    def hit_at(self, k: int) -> np.ndarray:
        """[N] float64: the probability that the best right item is among the first k."""
        return np.clip((k - self.higher) / (self.tied + 1.0), 0.0, 1.0)


def rank_counts(
    queries: Array,
    gallery: Array,
    query_group: Array,
    gallery_group: Array,
    *,
    query_mask: Array | None = None,
    gallery_mask: Array | None = None,
    left_out: Array | None = None,
    chunk: int = 1024,
    mesh: Mesh | None = None,
) -> RankCounts:
    """Ranks the gallery for every query by dot product; items of a query's group are right.

    The gallery is sorted by group, so that the right items of a query are one span: pass one gathers them for the best
    right score, pass two counts the others above it. With several right items per query, ties are counted as
    if one right item held the best score, which is a lower bound on the probability of a hit.

    Args:
      queries: [N, E] float; unit vectors for cosine similarity.
      gallery: [M, E] float.
      query_group: [N] int.
      gallery_group: [M] int.
      query_mask: [N] bool; False rows are left out of the result.
      gallery_mask: [M] bool; False rows are no candidates.
      left_out: [N] int; the group whose items are no candidates of that query, if any are of it.
      chunk: rows of queries and of the gallery in one block of scores.
      mesh: spreads the queries over all its devices, the gallery is on each; None runs where the arrays are. Where it
        is of several processes, each calls this with the same arrays of its own (numpy).

    Returns:
      RankCounts for the queries whose mask is True, in their order.

    Raises:
      UserError: shapes disagree, nothing is left after the masks, or a query has no right item.
    """
    _check_pair(queries, gallery, query_group=query_group, gallery_group=gallery_group, left_out=left_out)
    keep = _kept(query_mask, len(queries))
    candidates = _kept(gallery_mask, len(gallery))
    if not len(keep) or not len(candidates):
        raise UserError(
            f"retrieval: {len(keep)} queries and {len(candidates)} items are left after the masks; both are needed."
        )
    candidates = candidates[np.argsort(np.asarray(gallery_group)[candidates], kind="stable")]
    item_group, wanted = np.asarray(gallery_group)[candidates], np.asarray(query_group)[keep]
    right = _spans(item_group, wanted)  # [N, 2]
    empty = right[:, 0] == right[:, 1]
    if lonely := int(np.sum(empty)):
        first = wanted[np.argmax(empty)]
        raise UserError(
            f"retrieval: {lonely} of {len(keep)} queries have no right item in the gallery (the first is of "
            f"group {first}); every query needs at least one gallery item of its group."
        )
    out = np.zeros_like(right) if left_out is None else _spans(item_group, np.asarray(left_out)[keep])
    higher, tied = count_rivals(_take(queries, keep), right, out, _take(gallery, candidates), chunk, mesh)
    return RankCounts(*_on_this_host(higher, tied))


def retrieval_metrics(
    queries: Array,
    gallery: Array,
    query_group: Array,
    gallery_group: Array,
    *,
    ks: Sequence[int] = (1, 5, 10),
    query_mask: Array | None = None,
    gallery_mask: Array | None = None,
    chunk: int = 1024,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Returns `recall_at_k` for k in ks and `median_rank` (1-based) of the best right item; see `rank_counts`."""
    counts = rank_counts(
        queries,
        gallery,
        query_group,
        gallery_group,
        query_mask=query_mask,
        gallery_mask=gallery_mask,
        chunk=chunk,
        mesh=mesh,
    )
    metrics = {f"recall_at_{k}": float(np.mean(counts.hit_at(k))) for k in ks}
    return metrics | {"median_rank": float(np.median(counts.rank))}


def retrieval(
    a: Array,
    b: Array,
    a_group: Array,
    b_group: Array,
    *,
    names: tuple[str, str] = ("image", "text"),
    ks: Sequence[int] = (1, 5, 10),
    a_mask: Array | None = None,
    b_mask: Array | None = None,
    chunk: int = 1024,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Retrieval both ways, each picture with any number of captions (Karpathy & Fei-Fei 2015).

    From a picture the rank is that of the best of its captions; from a caption that of its picture.

    Args:
      a: [N, E] embeddings of the first modality.
      b: [M, E] embeddings of the second.
      a_group: [N] int; rows of a and b of one group belong together.
      b_group: [M] int.
      names: what the two modalities are called in the keys.
      ks: the cut-offs.
      a_mask: [N] bool, False is padding.
      b_mask: [M] bool.
      chunk: see `rank_counts`.
      mesh: see `rank_counts`.

    Returns:
      `image_to_text/recall_at_1`, ..., `image_to_text/median_rank`, the same for `text_to_image/`, and
      `mean_recall_at_k`, the mean of both ways.

    Raises:
      UserError: see `rank_counts`; each row of one side needs a partner on the other.
    """
    first = (a, a_group, a_mask)
    second = (b, b_group, b_mask)
    metrics: dict[str, float] = {}
    ways = [(f"{names[0]}_to_{names[1]}", first, second), (f"{names[1]}_to_{names[0]}", second, first)]
    for way, (q, q_group, q_mask), (g, g_group, g_mask) in ways:
        found = retrieval_metrics(
            q, g, q_group, g_group, ks=ks, query_mask=q_mask, gallery_mask=g_mask, chunk=chunk, mesh=mesh
        )
        metrics |= {f"{way}/{name}": value for name, value in found.items()}
    for k in ks:
        metrics[f"mean_recall_at_{k}"] = float(np.mean([metrics[f"{way}/recall_at_{k}"] for way, _, _ in ways]))
    return metrics


def top_k(
    queries: Array,
    gallery: Array,
    k: int,
    *,
    gallery_mask: Array | None = None,
    chunk: int = 1024,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k gallery items that score highest for each query, block by block.

    Args:
      queries: [N, E] float.
      gallery: [M, E] float.
      k: how many; no more than the gallery has are returned.
      gallery_mask: [M] bool; False rows are never returned.
      chunk: rows of queries and of the gallery in one block of scores.
      mesh: see `rank_counts`.

    Returns:
      Scores [N, k] float32, falling, and gallery rows [N, k] int32; of equal scores the earlier row comes first.

    Raises:
      UserError: shapes disagree, or nothing is left of the gallery.
    """
    _check_pair(queries, gallery)
    candidates = _kept(gallery_mask, len(gallery))
    if k < 1 or not len(candidates):
        raise UserError(f"top_k: k is {k} and the gallery has {len(candidates)} items; both must be at least 1.")
    most = min(k, len(candidates))
    found = best_items(_take(queries, np.arange(len(queries))), _take(gallery, candidates), most, chunk, mesh)
    scores, rows = _on_this_host(*found)
    return scores, candidates[rows].astype(np.int32)


def _on_this_host(*arrays: Array) -> list[np.ndarray]:
    """Returns the whole of arrays, whose rows may lie on devices of other processes, which all call this."""
    if not all(x.is_fully_addressable for x in arrays):
        arrays = multihost_utils.process_allgather(arrays, tiled=True)
    return [np.asarray(x) for x in arrays]


def mesh_in_use() -> Mesh | None:
    """Returns the mesh of `jax.set_mesh`, over which evaluators spread their ranking, or None."""
    return None if (mesh := jax.sharding.get_mesh()).empty else mesh


def _spans(sorted_groups: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns [N, 2] int32, from where to before where sorted_groups [M] is of a group of wanted [N]."""
    sides = [np.searchsorted(sorted_groups, wanted, side=side) for side in ("left", "right")]
    return np.stack(sides, axis=1).astype(np.int32)


def _kept(mask: Array | None, size: int) -> np.ndarray:
    """Row numbers where mask is True."""
    return np.arange(size) if mask is None else np.flatnonzero(np.asarray(mask))


def _take(x: Array, rows: np.ndarray) -> Array:
    """x[rows] in float32, on the host or where x is."""
    if len(rows) == len(x) and np.array_equal(rows, np.arange(len(x))):
        return x.astype(np.float32)
    return x[rows].astype(np.float32)


def _check_pair(queries: Array, gallery: Array, **groups: Array | None) -> None:
    """Raises UserError unless the two tables are [N, E] and [M, E], with groups [N], and 'gallery_group' [M]."""
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise UserError(
            f"retrieval: queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} must be [N, E] and [M, E]."
        )
    for name, group in groups.items():
        rows = len(gallery if name == "gallery_group" else queries)
        if group is not None and np.shape(group) != (rows,):
            raise UserError(f"retrieval: {name} has shape {np.shape(group)}, expected ({rows},), one a row.")
