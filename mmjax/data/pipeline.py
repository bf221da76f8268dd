"""The input pipeline: the batch at step s is a pure function of (config, seed, s), whoever reads which rows."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.core.errors import UserError, at_least, listed, nearest
from mmjax.core.types import Batch, Stream
from mmjax.data.bad_records import BadRecords
from mmjax.data.loading import Loader
from mmjax.data.mixture import as_mixture
from mmjax.data.source import Source
from mmjax.data.stream import BatchStream
from mmjax.data.targets import Target
from mmjax.data.transform import ArraySpec, Transform

Rows = slice | range | Sequence[int] | None
"""Which rows of the global batch this host reads; None is all of them."""

ENDLESS = 2**40
"""Steps after which training batches end."""

CHUNK_ROWS, CHUNK_BYTES = 64, 2**24
"""The most that one thread makes at a time: twice as many chunks as threads are in memory at once."""


@dataclasses.dataclass
class Pipeline:
    """Batches of a source: shuffled and endless for training, in order and padded for evaluation.

    Row r of step s is global position p = s * batch_size + r; the sampler says which record that is, and augmentation
    is drawn from a generator keyed by (seed, p, modality). So hosts that read disjoint rows read together what one
    would read alone, and a restart needs the step alone. A bad record gives its place to the next good one of the
    epoch's permutation.

    Attributes:
      source: where records come from; a `Mixture` draws several by weight.
      transforms: modality -> Transform.
      batch_size: rows of the global batch.
      seed: of order and augmentation.
      max_bad_share: share of bad records above which next() raises UserError.
      bad_log: JSONL file that names every bad record, or None.
      chunk: rows that one thread makes at a time; None takes 64, or what makes 16 MiB where that is fewer (clips).
      num_threads: threads; None takes the number of cores. More help where reads wait for a network.
      prefetch: batches made ahead.
      targets: name -> Target, what goes into `Batch.targets`.
    """

    source: Source
    transforms: Mapping[str, Transform]
    batch_size: int
    seed: int = 0
    max_bad_share: float = 0.01
    bad_log: str | os.PathLike[str] | None = None
    chunk: int | None = None
    num_threads: int | None = None
    prefetch: int = 2
    targets: Mapping[str, Target] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._mixture = as_mixture(self.source)
        self._check()
        self.bad = BadRecords(self._mixture, self.max_bad_share, self.bad_log)
        self._loader = Loader(self._mixture, self.transforms, self.targets, self.seed, self.bad)

    def _check(self) -> None:
        at_least(1, "Pipeline", batch_size=self.batch_size, chunk=self.chunk, num_threads=self.num_threads)
        at_least(0, "Pipeline", prefetch=self.prefetch)
        columns = list(self._mixture.columns)
        readers = [(f"modality {name!r}", transform.column) for name, transform in self.transforms.items()]
        readers += [(f"target {name!r}", target.column) for name, target in self.targets.items()]
        for reader, column in readers:
            if column not in columns:
                raise UserError(
                    f"{self._mixture.name} has no column {column!r}, which the {reader} reads."
                    f"{nearest(column, columns)} Its columns are {listed(columns)}."
                )

    @property
    def examples_per_epoch(self) -> int:
        """Records of the source (of all parts of a mixture)."""
        return len(self._mixture)

    def element_spec(self, batch_size: int | None = None) -> Batch:
        """Returns a Batch of jax.ShapeDtypeStruct with every modality; batch_size None is the global batch."""
        size = self.batch_size if batch_size is None else batch_size

        def array(spec: ArraySpec) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((size, *spec[0]), spec[1])

        streams = {}
        for name, transform in self.transforms.items():
            streams[name] = Stream(**{key: array(spec) for key, spec in transform.out_spec().items()})
        targets = {name: array(target.out_spec()) for name, target in self.targets.items()}
        return Batch(streams, array(((), np.int32)), array(((), np.bool_)), targets)

    def train(self, start_step: int = 0, rows: Rows = None) -> BatchStream:
        """Returns this host's rows of the batches of steps start_step, start_step + 1, ..., without end.

        `Batch.group` is the record's number (or its source's `group`): a record drawn twice is its own positive.

        Raises:
          UserError: (from next()) too many bad records, or one that cannot be read at all.
        """
        picked = self._rows(rows, self.batch_size)

        def load(step: int, part: slice) -> Batch:
            return self._loader.train(step * self.batch_size + picked[part])

        return self._stream(load, len(picked), start_step, ENDLESS)

    def eval_batches(self, batch_size: int | None = None, rows: Rows = None) -> BatchStream:
        """Returns this host's rows of every record once, in order, without augmentation; the same count on every host.

        `Batch.mask` is False on rows past the end and on bad records; `Batch.group` is the record's number or its
        source's `group` (-1 past the end).
        """
        size = self.batch_size if batch_size is None else batch_size
        picked = self._rows(rows, size)

        def load(step: int, part: slice) -> Batch:
            return self._loader.evaluate(step * size + picked[part])

        return self._stream(load, len(picked), 0, -(-len(self._mixture) // size))

    def _stream(self, load: Any, size: int, start: int, stop: int) -> BatchStream:
        spec = self.element_spec(size)
        row = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(spec)) // size  # bytes
        return BatchStream(
            load,
            spec,
            start=start,
            stop=stop,
            chunk=self.chunk or max(1, min(CHUNK_ROWS, CHUNK_BYTES // row)),
            num_threads=self.num_threads,
            prefetch=self.prefetch,
        )

    def _rows(self, rows: Rows, size: int) -> np.ndarray:
        """Returns the row numbers [R] int64.

        Raises:
          UserError: there are none, or some are outside of the batch.
        """
        if rows is None or isinstance(rows, slice):
            picked = np.arange(size)[rows or slice(None)]
        else:
            picked = np.asarray(rows, np.int64)
        if len(picked) == 0 or picked.min() < 0 or picked.max() >= size:
            raise UserError(f"Pipeline: rows={rows} must be some of the {size} rows of the batch.")
        return picked.astype(np.int64)

    def spec(self) -> dict[str, dict[str, Any]]:
        """Returns modality -> preprocessing spec, JSON-able; `transforms_from_spec` builds the transforms again."""
        return {name: transform.spec() for name, transform in self.transforms.items()}
