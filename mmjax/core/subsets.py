"""Subsets of the modalities: which there are, and a batch that has no others."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable

from mmjax.core.types import Batch


def subsets(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the 2^M - 1 non-empty subsets of M modalities, the small ones first."""
    names = list(names)
    return [part for size in range(1, len(names) + 1) for part in itertools.combinations(names, size)]


def subset_name(part: Iterable[str]) -> str:
    """Returns 'image+text' for a subset."""
    return "+".join(part)


def keep_only(batch: Batch, names: Collection[str]) -> Batch:
    """Returns batch with every modality outside of names missing from every example; all shapes stay."""
    streams = {
        name: stream if name in names else stream.replace(mask=stream.mask & False)
        for name, stream in batch.streams.items()
    }
    return batch.replace(streams=streams)
