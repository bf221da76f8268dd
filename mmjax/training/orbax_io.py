"""How Orbax is asked to write and read: its options, sizes and time limits, and its failures in words."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

_TIMEOUT = 24 * 3600
"""Seconds that a save of one process may take. Orbax measures them by the wall clock, which may be set forward."""

TIMEOUT_TOGETHER = 3600
"""The same of several processes, which wait this long for one that cannot write."""

_FILE_BYTES = 256 << 20
"""Of each file of arrays, about: checksums are taken of several files at once."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What the system says of a disk that takes no more, which another start does not mend."""

_CHUNK_BYTES = 8 << 20
"""The most of an array that is stored, and read, as one: the C library gives such a buffer again, and the system need
not clear fresh memory for each, which is much of what a restore does."""


def writing(
    last: int, best: int, score: Callable[[Mapping[str, float]], float], sign: Callable[[], None]
) -> ocp.CheckpointManagerOptions:
    """Returns options that keep the `last` newest and the `best` of the highest score; `sign` ends each save."""
    policies = [preservation_policy.LatestN(last)]
    if best:
        policies.append(preservation_policy.BestN(get_metric_fn=score, n=best, keep_checkpoints_without_metrics=False))
    return ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
        best_fn=_written,
        cleanup_tmp_directories=True,
        create=True,
        async_options=ocp.AsyncOptions(
            timeout_secs=_TIMEOUT if jax.process_count() == 1 else TIMEOUT_TOGETHER,
            post_finalization_callback=sign,
            create_directories_asynchronously=False,  # else threads wait for them by the wall clock, minutes at most
        ),
    )


def reading() -> ocp.CheckpointManagerOptions:
    """Returns options that leave the folder as it is."""
    return ocp.CheckpointManagerOptions(
        read_only=True, create=False, save_interval_steps=0, best_fn=_written, lightweight_initialize=True
    )


def _written(metrics: Mapping[str, float]) -> float:
    """Orbax stores metrics only where there is a best_fn; which steps stay is the preservation policy's."""
    return next(iter(metrics.values()), 0.0)


def manager(
    folder: epath.Path, options: ocp.CheckpointManagerOptions, failures: list[BaseException]
) -> ocp.CheckpointManager:
    """Returns what keeps `state` and `meta` of each step in folder; why a write fails is put in failures at once."""
    handlers = {"state": ocp.PyTreeCheckpointHandler(use_compression=False), "meta": ocp.JsonCheckpointHandler()}
    handlers = {name: _watched(handler, failures) for name, handler in handlers.items()}
    return ocp.CheckpointManager(folder, options=options, item_handlers=handlers)


def _watched(handler: Any, failures: list[BaseException]) -> Any:
    """Returns a handler whose failures to write are noted at once.

    Orbax raises them when the processes of a job have met after the save, and one that failed does not come to that
    meeting: the others wait for it as long as they may, and it for them.
    """
    save = handler.async_save

    async def async_save(*args: Any, **kwargs: Any) -> list[ocp.future.Future]:
        return [_Watched(future, failures) for future in await save(*args, **kwargs) or ()]

    handler.async_save = async_save
    return handler


@dataclasses.dataclass(frozen=True)
class _Watched:
    """A future of Orbax that notes why it failed."""

    future: ocp.future.Future
    failures: list[BaseException]

    def result(self, timeout: float | None = None) -> Any:
        try:
            return self.future.result(timeout)
        except BaseException as error:  # whatever it is, it is noted and raised again
            self.failures.append(error)
            raise

    def cancel(self) -> bool | None:
        return self.future.cancel()


def is_full(error: BaseException) -> bool:
    """Says whether a disk took no more."""
    return any(os.strerror(number) in str(error) for number in FULL)


def reason(error: BaseException) -> str:
    """Returns why the disk refused, from the end of a chain of errors: the system's own words, or the first line."""
    text = str(error)
    for number in (*FULL, errno.EIO):
        if os.strerror(number) in text:
            return os.strerror(number)
    return (text.splitlines() or [""])[0][:200] or type(error).__name__


def to_save(tree: Any) -> ocp.args.PyTreeSave:
    """Returns what asks Orbax to save tree in chunks and files of the sizes above."""
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), tree)
    return ocp.args.PyTreeSave(tree, save_args=save_args, ocdbt_target_data_file_size=_FILE_BYTES)


def to_restore(wanted: Any, **options: bool) -> ocp.args.PyTreeRestore:
    """Returns what asks Orbax for the leaves of wanted, of the types and shardings that they say."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
    return ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, **options)


def stored_tree(folder: epath.Path) -> Any:
    """Returns the tree of array metadata of a stored state."""
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.metadata(folder).item_metadata.tree
