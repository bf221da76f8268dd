"""The tf.data graph: chunks in parallel, in order, batched and prefetched; and an iterator that ends cleanly."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from mmjax.core.types import Batch
from mmjax.data.tf import tf

Load = Callable[[int, slice], Batch]
"""(batch number, rows of it) -> those rows."""


class _Worker:
    """What the threads of one stream share: the work, the errors, and whether to stop."""

    def __init__(self, load: Load, leaves: list[jax.ShapeDtypeStruct], chunk: int):
        self.load = load
        self.leaves = leaves
        self.size = leaves[0].shape[0]
        self.chunk = chunk
        self.chunks = -(-self.size // chunk)
        self.errors: dict[int, BaseException] = {}
        self.stopped = False
        self.running = 0
        self.inside = threading.local()
        self.idle = threading.Condition()

    def __call__(self, number: np.ndarray) -> list[np.ndarray]:
        """Returns the leaves of chunk `number`, and [rows] int64: -1, or the chunk's number where it failed."""
        number = int(number)
        batch, place = divmod(number, self.chunks)
        rows = slice(place * self.chunk, min((place + 1) * self.chunk, self.size))
        failed = np.full(rows.stop - rows.start, -1, np.int64)
        if self._enter():
            try:
                return [*jax.tree.leaves(self.load(batch, rows)), failed]
            except Exception as error:  # TensorFlow would turn it into text; the iterator raises it again
                self.errors[number] = error
            finally:
                self._leave()
        return [np.zeros((len(failed), *leaf.shape[1:]), leaf.dtype) for leaf in self.leaves] + [failed + 1 + number]

    def _enter(self) -> bool:
        with self.idle:
            self.inside.now = not self.stopped
            self.running += self.inside.now
            return self.inside.now

    def _leave(self) -> None:
        with self.idle:
            self.running -= 1
            self.inside.now = False
            self.idle.notify_all()

    def stop(self) -> None:
        """Lets no new chunk start and waits for those at work."""
        with self.idle:
            self.stopped = True
            self.idle.wait_for(lambda: self.running == 0, timeout=60)


class BatchStream(Iterator[Batch]):
    """Batches of a tf.data graph, in order; an error of its threads is raised by next() where its batch would be.

    `close()`, dropping it, and the end of the interpreter stop its threads.
    """

    def __init__(
        self,
        load: Load,
        spec: Batch,
        *,
        start: int,
        stop: int,
        chunk: int,
        num_threads: int | None = None,
        prefetch: int = 2,
    ):
        """Starts the stream.

        Args:
          load: makes some rows of a batch; called from several threads.
          spec: a Batch of jax.ShapeDtypeStruct of a whole batch.
          start: the first batch.
          stop: one past the last batch.
          chunk: rows that one call makes.
          num_threads: chunks at work at once (as many wait in order for those before them); None takes the number of
            cores.
          prefetch: whole batches made ahead.
        """
        leaves, self._treedef = jax.tree.flatten(spec)
        self._worker = _Worker(load, leaves, chunk)
        dataset = _graph(self._worker, start, stop, num_threads or os.cpu_count() or 1, prefetch)
        self._batches: list[Iterator[Any]] = [iter(dataset)]
        self._finalizer = weakref.finalize(self, _end, self._worker, self._batches)

    def __next__(self) -> Batch:
        if not self._batches:
            raise StopIteration
        *parts, failed = next(self._batches[0])
        failed = failed.numpy()
        if failed.max() >= 0:
            error = self._worker.errors[int(failed[failed >= 0][0])]
            self.close()
            raise error
        return jax.tree.unflatten(self._treedef, [_as_numpy(part) for part in parts])

    def close(self) -> None:
        """Stops the threads; next() then ends the iteration."""
        self._finalizer()


def _end(worker: _Worker, batches: list[Iterator[Any]]) -> None:
    """Stops the threads and joins them, which at the end of the interpreter must be before Python itself is gone."""
    if getattr(worker.inside, "now", False):  # garbage collected on one of the threads that would be waited for
        threading.Thread(target=_end, args=(worker, batches)).start()
        return
    worker.stop()
    batches.clear()  # the last reference: TensorFlow cancels the graph and waits for its threads
    worker.load = _ended  # TensorFlow never lets go of the worker, which must not keep the source alive


def _ended(batch: int, rows: slice) -> Batch:
    raise RuntimeError(f"the stream has ended; rows {rows} of batch {batch} were asked for.")


def _as_numpy(tensor: tf.Tensor) -> np.ndarray:
    """Returns the tensor's own memory as a read-only array, as `Dataset.as_numpy_iterator` does."""
    array = tensor._numpy()
    array.setflags(write=False)
    return array


def _graph(worker: _Worker, start: int, stop: int, threads: int, prefetch: int) -> tf.data.Dataset:
    """Returns a dataset of (leaf of a batch, ..., failed [B])."""
    types = [tf.as_dtype(leaf.dtype) for leaf in worker.leaves] + [tf.int64]
    shapes = [[None, *leaf.shape[1:]] for leaf in worker.leaves] + [[None]]

    def load(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        parts = tf.numpy_function(worker, [number], types, stateful=False)
        return tuple(tf.ensure_shape(part, shape) for part, shape in zip(parts, shapes, strict=True))

    options = tf.data.Options()
    options.autotune.enabled = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    chunks = tf.data.Dataset.range(start * worker.chunks, stop * worker.chunks)
    # a finished chunk that waits for one before it counts as a call: with as many as threads, some would be idle
    dataset = chunks.map(load, num_parallel_calls=2 * threads, deterministic=True)
    if worker.chunks > 1:
        dataset = dataset.rebatch(worker.size)
    return dataset.prefetch(prefetch).with_options(options)
