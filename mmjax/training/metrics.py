"""Metrics on the way out: metrics.jsonl, TensorBoard, and a progress bar or plain lines."""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmjax.core.files import whole
from mmjax.core.types import Array
from mmjax.data.tf import tf


class MetricWriter:
    """Writes each record to `metrics.jsonl` and to TensorBoard; only process 0 writes.

    On a restart, records after the step that is resumed from are dropped, so that each step stands there once.
    """

    def __init__(self, workdir: pathlib.Path, resumed_step: int):
        self._active = jax.process_index() == 0
        if not self._active:
            return
        path = workdir / "metrics.jsonl"
        if path.exists():
            _drop_after(path, resumed_step)
        self._file = path.open("a")
        self._folder = workdir / "tensorboard"
        self._board = tf.summary.create_file_writer(str(self._folder))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one record; values that are not finite are written as strings, since JSON has none.

        Raises:
          OSError: the disk is full.
        """
        if not self._active:
            return
        values = {name: float(value) for name, value in metrics.items()}
        shown = {name: value if np.isfinite(value) else str(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **shown}) + "\n")
        self._file.flush()
        with _full_disk(self._folder), self._board.as_default(np.int64(step)):
            for name, value in values.items():
                tf.summary.scalar(
                    name, np.float32(value)
                )  # TensorFlow never lets go of a Python number that it has seen

    def close(self) -> None:
        """Flushes both.

        Raises:
          OSError: the disk is full.
        """
        if self._active:
            with _full_disk(self._folder), contextlib.closing(self._board):
                self._file.close()


@contextlib.contextmanager
def _full_disk(folder: pathlib.Path) -> Iterator[None]:
    """Gives TensorFlow's error on a full disk as the OSError that all else raises."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error


def _drop_after(path: pathlib.Path, step: int) -> None:
    """Rewrites a JSONL file without records after step, nor a last line that a kill cut short."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    with whole(path) as part:
        part.write_text("".join(line + "\n" for line in kept))


class Delayed:
    """Hands over each step's metrics one step late, when the device has long finished them: the host never waits."""

    def __init__(self):
        self._pending: tuple[int, Mapping[str, Array]] | None = None

    def swap(self, step: int | None, metrics: Mapping[str, Array] | None) -> tuple[int, dict[str, float]] | None:
        """Keeps (step, metrics) and returns what was kept before, as numbers; None where there was nothing."""
        before, self._pending = self._pending, None if step is None else (step, metrics)
        if before is None:
            return None
        return before[0], {name: float(value) for name, value in jax.device_get(before[1]).items()}


class Meter:
    """Examples per second and the share of time spent waiting for input, over the last steps."""

    def __init__(self, batch_size: int, window: int = 50):
        self._batch_size = batch_size
        self._marks = collections.deque([(time.monotonic(), 0.0)], maxlen=window + 1)

    def add(self, waited: float) -> None:
        """Counts one step that waited so many seconds for its batch."""
        self._marks.append((time.monotonic(), self._marks[-1][1] + max(waited, 0.0)))

    def read(self) -> dict[str, float]:
        """Returns the rates; 0 where the clock was set back, so that no time has passed by it."""
        (first, waited_before), (last, waited) = self._marks[0], self._marks[-1]
        seconds = last - first
        if seconds <= 0:
            return {"examples_per_second": 0.0, "input_wait_share": 0.0}
        return {
            "examples_per_second": (len(self._marks) - 1) * self._batch_size / seconds,
            "input_wait_share": min((waited - waited_before) / seconds, 1.0),
        }


class ProgressBar:
    """A rich bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, total: int, start: int, console: Console, line_every: float = 15.0):
        self._console, self._total, self._line_every = console, total, line_every
        self._start, self._start_step, self._last_line = time.monotonic(), start, 0.0
        self._bar = None
        if console.is_terminal:
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*map(_column, columns), TextColumn("{task.fields[numbers]}"), console=console)
            self._task = self._bar.add_task("training", total=total, completed=start, numbers="")
            self._bar.start()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows step and its numbers."""
        wait = metrics.get("input_wait_share_max", metrics.get("input_wait_share", 0))  # the slowest host's
        numbers = (
            f"loss {metrics['loss']:.4f}  {metrics.get('examples_per_second', 0):.0f} examples/s  "
            f"input wait {100 * wait:.0f} %"
        )
        if self._bar:
            self._bar.update(self._task, completed=step, numbers=numbers)
        elif step == self._total or time.monotonic() - self._last_line > self._line_every:
            self._last_line = time.monotonic()
            per_step = (self._last_line - self._start) / max(step - self._start_step, 1)
            eta = max(round(per_step * (self._total - step)), 0)
            self._console.print(
                f"step {step}/{self._total}  {numbers}  ETA {eta // 60}:{eta % 60:02d}", highlight=False
            )

    def close(self) -> None:
        """Leaves the terminal as it was."""
        if self._bar:
            self._bar.stop()


def _column(column: str | BarColumn) -> TextColumn | BarColumn:
    return TextColumn(column) if isinstance(column, str) else column
