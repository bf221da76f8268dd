"""Orbax checkpoints: asynchronous, atomic, last and best kept; each holds the state and all that rebuilds its model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from mmjax.core.errors import TemporaryError, UserError, at_least
from mmjax.core.trees import flatten, map_with_path, strict_merge
from mmjax.training import integrity, orbax_io
from mmjax.training.run_folder import check_run
from mmjax.training.sharding import placed
from mmjax.training.state import TrainState

_log = logging.getLogger(__name__)

_PAUSE = 0.02
"""Seconds between looks at a save that is waited for."""


@dataclasses.dataclass(frozen=True)
class Keep:
    """When checkpoints are written and which stay.

    Attributes:
      every: duration between saves; evaluations and the end save too.
      last: newest ones to keep, at least 1.
      best: best ones to keep, by the evaluation metric `metric`; 0 keeps none for being good.
      metric: name of an evaluation metric, larger is better; NaN is worse than any number.

    Raises:
      UserError: last below 1 or best below 0.
    """

    every: str | int = "1000 steps"
    last: int = 3
    best: int = 1
    metric: str | None = None

    def __post_init__(self):
        at_least(1, "keep", last=self.last)
        at_least(0, "keep", best=self.best)


class Checkpoints:
    """The folder `checkpoints` of a run.

    Each step's folder holds `state` (TrainState as Orbax arrays), `meta` (JSON: the resolved config and the
    preprocessing spec with its tokenizer) and a list of its files with their checksums (training.integrity). A step's
    folder appears under its name only when all that is on the disk. Arrays are not compressed: zstd makes float32
    weights 8 % smaller and takes several times the processor time of the rest of a save (benchmarks/checkpoint.py).

    A checkpoint that is damaged is never restored. To write (with `keep`) renames those that are newer than the newest
    whole one; every process of a job must then open the folder. To read leaves all as it is and passes over them.

    Args:
      workdir: of the run.
      keep: to write too; None only reads.
      tell: is given a sentence about each damaged checkpoint; default: a warning in the log.

    Raises:
      UserError: opened to write, and no checkpoint there is whole.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        keep: Keep | None = None,
        tell: Callable[[str], None] = _log.warning,
    ):
        self.directory = epath.Path(workdir).absolute() / "checkpoints"
        self._tell, self._saving, self._failed, self._checked = tell, None, False, {}
        self._failures: list[BaseException] = []
        if keep is not None:
            integrity.set_aside_damaged(pathlib.Path(self.directory), tell)
            score = functools.partial(_score, metric=keep.metric)
            options = orbax_io.writing(keep.last, keep.best if keep.metric else 0, score, self._sign)
        else:
            options = orbax_io.reading()
        exists = keep is not None or self.directory.exists()
        self._manager = orbax_io.manager(self.directory, options, self._failures) if exists else None

    def latest(self) -> int | None:
        """Returns the newest complete step, or None."""
        return max(self.steps(), default=None)

    def newest_whole(self) -> int:
        """Returns the newest step whose files are as they were saved; tells of those that it passes over.

        Raises:
          UserError: there is none.
        """
        known = self.steps()
        if not known:
            raise UserError(f"{self.directory}: there is no complete checkpoint.")
        wrong = {}
        for step in reversed(known):
            if not (why := self._damage(step)):
                for damaged, reason in wrong.items():
                    self._tell(
                        f"The checkpoint {self.directory / str(damaged)} is damaged and is not used: {reason}. The "
                        f"newest whole checkpoint is step {step}."
                    )
                return step
            wrong[step] = why
        raise UserError(integrity.none_whole(self.directory, wrong))

    def steps(self) -> list[int]:
        """Returns all complete steps in order."""
        if not self._manager:
            return []
        unfinished = self._saving if self._manager.is_saving_in_progress() else None
        return sorted(step for step in self._manager.all_steps() if step != unfinished)

    def save(self, state: TrainState, meta: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> bool:
        """Starts to write state in the background; returns False where its step is there already.

        Raises:
          UserError: this save cannot begin, or the one before it could not be written.
        """
        step = int(state.step)
        self.wait()
        if step in self._manager.all_steps():
            return False
        items = ocp.args.Composite(state=orbax_io.to_save(_as_stored(state)), meta=ocp.args.JsonSave(dict(meta)))
        self._saving = step
        with self._explained():
            return self._manager.save(step, args=items, metrics=dict(metrics) if metrics else None, force=True)

    def _sign(self) -> None:
        """Adds the list of files; process 0 does so in the background when all have written, before the last rename.

        Raises:
          RuntimeError: the save has been reported as failed; what still runs of it must not end in a checkpoint.
        """
        if self._saving is None:
            raise RuntimeError("this save was given up")
        try:
            for folder in pathlib.Path(self.directory).glob(f"{self._saving}.*-tmp*"):
                integrity.write_manifest(folder)
        except OSError as error:
            self._failures.append(error)
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the failure of a save into a sentence."""
        try:
            yield
        except Exception as error:  # Orbax, TensorStore and the file system each raise kinds of their own
            step, self._saving, self._failed = self._saving, None, True
            kind = UserError if orbax_io.is_full(error) else TemporaryError
            raise kind(
                f"the checkpoint of step {step} could not be written to {self.directory} ({orbax_io.reason(error)}), "
                f"so training stops. {self.last_complete()}"
            ) from error

    def last_complete(self) -> str:
        """Returns a sentence on what a restart would go on from."""
        steps = integrity.complete_steps(self.directory)
        if not steps:
            return "There is no complete checkpoint."
        return f"The last complete checkpoint is step {steps[0]}; the same command goes on from there."

    def check(self) -> None:
        """Looks, without waiting, whether the save in the background has failed.

        Raises:
          UserError: it has.
        """
        if self._saving is not None and (self._failures or not self._manager.is_saving_in_progress()):
            self.wait()

    def restore(self, abstract: TrainState, step: int | None = None) -> TrainState:
        """Returns the state of step (default: the newest), placed as the shardings of `abstract` say.

        Raises:
          UserError: no such checkpoint, or one that is damaged or does not fit the model.
        """
        step = self._step(step)
        with self._readable(step):
            self._check(abstract, step)
            args = ocp.args.Composite(state=orbax_io.to_restore(_as_stored(abstract)))
            found = self._manager.restore(step, args=args)["state"]
        balance = flatten(found.pop("balance", {}))
        return abstract.replace(**found, balance=map_with_path(lambda path, _: balance[path], abstract.balance))

    def _check(self, abstract: TrainState, step: int) -> None:
        stored = orbax_io.stored_tree(self._state_folder(step))
        try:
            strict_merge(abstract.params, flatten(stored["params"]))
            strict_merge(abstract, flatten(stored))
        except UserError as error:
            raise UserError(
                f"checkpoint {self.directory / str(step)} does not fit this config, so it cannot be resumed "
                f"(use another --workdir, or --init-from for its weights alone): {error}"
            ) from error

    def restore_params(self, step: int | None = None, sharding: jax.sharding.Sharding | None = None) -> dict[str, Any]:
        """Returns the parameters to evaluate (the moving average where there is one), whole, on one device.

        Args:
          step: default the newest.
          sharding: of every leaf; default this process's first device.

        Raises:
          UserError: no such checkpoint, or a damaged one.
        """
        step = self._step(step)
        sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        with self._readable(step):
            stored = orbax_io.stored_tree(self._state_folder(step))
            wanted = {name: stored[name] for name in ("params", "ema") if stored.get(name) is not None}
            wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), wanted)
            with ocp.PyTreeCheckpointer() as checkpointer:
                args = orbax_io.to_restore(wanted, partial_restore=True)
                found = checkpointer.restore(self._state_folder(step), args=args)
        return _with_average(found["params"], found.get("ema"))

    def meta(self, step: int | None = None) -> dict[str, Any]:
        """Returns the JSON stored with step (default: the newest): config, preprocess."""
        step = self._step(step)
        with self._readable(step):
            return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

    def best(self, metric: str) -> int | None:
        """Returns the step with the largest value of metric, or None where none was evaluated; tells of damage."""
        scored = []
        for step in self.steps():
            if why := integrity.damage(self.directory / str(step), "metrics/"):
                self._tell(
                    f"The metrics of the checkpoint {self.directory / str(step)} are damaged and not used: {why}."
                )
                continue
            metrics = self._manager.metrics(step) or {}
            if metric in metrics:
                scored.append((_score(metrics, metric), step))
        return max(scored)[1] if scored else None

    def wait(self) -> None:
        """Waits until every save that was started is complete; with other processes, not for one that fails here.

        Raises:
          UserError: one could not be written.
        """
        end = time.monotonic() + 2 * orbax_io.TIMEOUT_TOGETHER  # by then Orbax's own threads have given up
        with self._explained():
            while self._together() and self._manager.is_saving_in_progress() and time.monotonic() < end:
                if self._failures:
                    raise self._failures[0]
                time.sleep(_PAUSE)
            self._manager.wait_until_finished()
        self._saving = None

    def close(self) -> None:
        """Waits for saves and gives back the threads; after one that failed, other processes are not waited for.

        Raises:
          UserError: a save could not be written, and nothing has said so yet.
        """
        if self._manager and not (self._failed and self._together()):
            with contextlib.suppress(UserError) if self._failed else contextlib.nullcontext(), self._explained():
                self._manager.close()

    def _together(self) -> bool:
        """Says whether Orbax's threads wait for those of other processes: an hour, see orbax_io."""
        return jax.process_count() > 1

    def _state_folder(self, step: int) -> epath.Path:
        return self.directory / str(step) / "state"

    def _step(self, step: int | None) -> int:
        """Returns step, or the newest whole one, once its files are found to be as they were saved."""
        known = self.steps()
        if step is None or not known:
            return self.newest_whole()
        if step not in known:
            raise UserError(f"{self.directory}: there is no checkpoint of step {step}; there are {known}.")
        if why := self._damage(step):
            others = [other for other in known if other != step]
            raise UserError(
                f"checkpoint {self.directory / str(step)} is damaged and was not read: {why}. Other steps are {others}."
            )
        return step

    def _damage(self, step: int) -> str:
        """Returns what is wrong with a step, '' for nothing; each is read once, and those opened to write were."""
        if step not in self._checked:
            folder = self.directory / str(step)
            self._checked[step] = integrity.damage(folder)
            if not self._checked[step] and not integrity.has_manifest(folder):
                self._tell(integrity.unchecked(folder))
        return self._checked[step]

    @contextlib.contextmanager
    def _readable(self, step: int) -> Iterator[None]:
        """Turns what Orbax raises on a checkpoint that it cannot read (one without a list of files) into a sentence."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of many kinds, as in `_explained`
            raise UserError(
                f"checkpoint {self.directory / str(step)} cannot be read ({orbax_io.reason(error)}). To go on from an "
                "earlier one, move it out of the folder."
            ) from error


def _as_stored(state: TrainState) -> dict[str, Any]:
    """Returns field -> tree; what has no leaf of the modulators' states is left out, as is `balance` without any."""
    tree = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    balance = {name: child for name, child in tree.pop("balance").items() if jax.tree.leaves(child)}
    return tree | ({"balance": balance} if balance else {})


def _with_average(params: Any, ema: Any) -> Any:
    if ema is None:
        return params
    if isinstance(params, Mapping):
        return {name: _with_average(child, ema.get(name)) for name, child in params.items()}
    return ema


def _score(metrics: Mapping[str, float], metric: str) -> float:
    """Returns what checkpoints are compared by."""
    value = metrics.get(metric, -math.inf)
    return -math.inf if math.isnan(value) else value


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """Weights only, from another run: `--init-from`, or those of a teacher.

    Attributes:
      path: workdir of the run.
      step: default the newest.
      allow_missing, allow_extra: patterns of parameter paths that may be missing there or here; a mis-shaped weight
        that allow_missing names keeps its fresh values.
    """

    path: str
    step: int | None = None
    allow_missing: Sequence[str] = ()
    allow_extra: Sequence[str] = ()

    def _open(self) -> contextlib.closing[Checkpoints]:
        others = "Files of other libraries are for `pretrained` (mmjax.weights)."
        folder = check_run(self.path, "weights of another run (--init-from, teachers)", others)
        return contextlib.closing(Checkpoints(folder))

    def preprocess(self) -> dict[str, Any]:
        """Returns the preprocessing spec that the weights were trained with, modality -> settings."""
        with self._open() as checkpoints:
            return checkpoints.meta(self.step)["preprocess"]

    def merge(self, params: Any) -> Any:
        """Returns params (arrays) with the stored weights in their place, sharded as params are.

        Raises:
          UserError: no checkpoint there, or weights that do not fit and are not named.
        """
        with self._open() as checkpoints:
            loaded = flatten(checkpoints.restore_params(self.step))
        merged = strict_merge(params, loaded, allow_missing=self.allow_missing, allow_extra=self.allow_extra)
        return jax.tree.map(lambda new, old: old if new is old else placed(new, old.sharding), merged, params)
