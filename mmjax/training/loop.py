"""The loop: batches in, steps on the device, metrics, evaluations and checkpoints out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import time
from typing import Any

import fiddle as fdl
import jax
from rich.console import Console

from mmjax.core.config import to_json
from mmjax.core.errors import UserError, listed, one_of
from mmjax.core.mesh import make_mesh
from mmjax.core.permissions import safe_permissions
from mmjax.core.secrets import masked, masked_json
from mmjax.data.pipeline import Pipeline
from mmjax.data.spec import describe
from mmjax.evaluation.evaluator import Embed
from mmjax.training import prepare
from mmjax.training.agreement import Agreement
from mmjax.training.checkpoint import Checkpoints
from mmjax.training.evaluate import bind, encoded, evaluate
from mmjax.training.experiment import Experiment, build, check_cheap
from mmjax.training.initialise import initial_state, stored_preprocess
from mmjax.training.lock import hold
from mmjax.training.metrics import Delayed, Meter, MetricWriter, ProgressBar
from mmjax.training.orbax_io import FULL
from mmjax.training.overview import parameter_overview
from mmjax.training.sharding import global_batch, local_rows
from mmjax.training.state import TrainState
from mmjax.training.stop import Interrupted, StopSignal
from mmjax.training.trainer import Trainer, make_trainer


def fit(config: fdl.Config, workdir: str | os.PathLike[str], console: Console | None = None) -> dict[str, float]:
    """Trains, or goes on training, the Experiment of config in workdir; returns the last evaluation's metrics.

    Raises:
      UserError: anything wrong with config, data or an existing checkpoint; too many bad records or non-finite steps;
        another job trains in workdir; the disk is full.
      Interrupted: a signal asked to stop; the state is saved.
    """
    console = console or Console()
    tell = functools.partial(console.print, soft_wrap=True, highlight=False, markup=False, emoji=False)
    with safe_permissions():
        folder = prepare.make_workdir(workdir)
        with hold(folder, tell):
            check_cheap(config)
            experiment: Experiment = build(config)
            with contextlib.closing(Checkpoints(folder, experiment.keep, tell)) as checkpoints:
                try:
                    return _fit(config, experiment, folder, checkpoints, console)
                except OSError as error:
                    if error.errno not in FULL:
                        raise
                    checkpoints.wait()
                    raise UserError(
                        f"{error.filename or folder} cannot be written ({error.strerror}), so training stops. "
                        f"{checkpoints.last_complete()}"
                    ) from error


def _fit(
    config: fdl.Config, experiment: Experiment, folder: pathlib.Path, checkpoints: Checkpoints, console: Console
) -> dict[str, float]:
    stored = stored_preprocess(checkpoints, experiment.init_from, experiment.teachers)
    data = prepare.prepare_data(experiment.data, folder, stored)
    console.print(describe(data.source), soft_wrap=True, highlight=False, markup=False, emoji=False)
    mesh = make_mesh(experiment.mesh)
    with jax.set_mesh(mesh):
        run = Run(experiment, data, make_trainer(experiment, data, mesh), checkpoints, console)
        run.meta = {"config": masked_json(json.loads(to_json(config))), "preprocess": data.spec()}
        weights = (experiment.init_from, experiment.teachers, experiment.pretrained)
        state, origin = initial_state(run.trainer, run.checkpoints, *weights)
        prepare.write_text(folder / "config.json", json.dumps(run.meta["config"], indent=1))
        console.print(parameter_overview(state.params))
        console.print(
            f"mesh {dict(mesh.shape)} of {mesh.devices.flat[0].device_kind} devices; {masked(origin)}.", soft_wrap=True
        )
        with contextlib.closing(MetricWriter(folder, int(state.step))) as run.writer:
            return run.train(state)


class Run:
    """One call of `fit`: what its stages share."""

    meta: dict[str, Any]
    writer: MetricWriter

    def __init__(
        self, experiment: Experiment, data: Pipeline, trainer: Trainer, checkpoints: Checkpoints, console: Console
    ):
        self.experiment, self.data, self.trainer = experiment, data, trainer
        self.checkpoints, self.console = checkpoints, console
        self.save_every = max(1, trainer.to_steps(experiment.keep.every))
        every = experiment.evaluate_every
        self.evaluate_every = max(1, trainer.to_steps(every)) if every is not None else trainer.total_steps
        self.meter, self.delayed = Meter(data.batch_size), Delayed()
        self.agreement = Agreement(trainer.mesh)
        pipeline = functools.partial(dataclasses.replace, data, bad_log=None)
        self.evaluations = bind(
            experiment.evaluations, encoded(experiment.model, data.transforms), pipeline, trainer.mesh
        )
        if experiment.keep.metric and self.evaluations:
            one_of(experiment.keep.metric.partition("/")[0], self.evaluations, "keep.metric, before its '/'")

    def train(self, state: TrainState) -> dict[str, float]:
        """Takes the steps that remain; returns the last evaluation's metrics."""
        start, total = int(state.step), self.trainer.total_steps
        if start > total:
            raise UserError(f"the run is at step {start} already, past the {total} steps of duration.")
        self.progress = ProgressBar(total, start, self.console)
        batch_size = self.data.batch_size
        batches = self.data.train(start, local_rows(batch_size, self.trainer.mesh))
        results = evaluate(self.evaluations, self._embed(state)) if start == total else {}
        with StopSignal() as stop:
            try:
                for step in range(start + 1, total + 1):
                    begin = time.monotonic()
                    batch = next(batches)
                    self.meter.add(time.monotonic() - begin)
                    state, metrics = self.trainer.step(state, global_batch(batch, batch_size, self.trainer.mesh))
                    if step % self.experiment.log_every == 0 or step == total:
                        self._log(step, metrics)
                    self.checkpoints.check()
                    results = self._after_step(step, state) or results
                    waited = self.meter.read()["input_wait_share"]
                    if step < total and self.agreement.stop(step, stop.received, waited):
                        self._interrupt(step, state)
                self._log(None, None)
            finally:
                self.progress.close()
                batches.close()
        self.checkpoints.wait()
        return results

    def _after_step(self, step: int, state: TrainState) -> dict[str, float]:
        """Evaluates and saves where it is time to; returns the evaluation's metrics, if any."""
        last = step == self.trainer.total_steps
        results = self._evaluate(step, state) if last or step % self.evaluate_every == 0 else {}
        if results or last or step % self.save_every == 0:
            self._log(None, None)  # a restart goes on after this step, so its record is written before
            self.checkpoints.save(state, self.meta, results)
        return results

    def _evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        if not self.evaluations:
            return {}
        results = evaluate(self.evaluations, self._embed(state))
        self.writer.write(step, results)
        metric = self.experiment.keep.metric
        if metric and metric not in results:
            self.console.print(
                f"keep.metric: no evaluation gives {metric!r}; there are {listed(results)}.", markup=False
            )
        return results

    def _embed(self, state: TrainState) -> Embed:
        return lambda batch: self.trainer.embed(state.eval_params, batch.replace(targets={}))

    def _log(self, step: int | None, metrics: Any) -> None:
        ready = self.delayed.swap(step, metrics)
        if ready is None:
            return
        done, values = ready
        values |= self.meter.read() | self.agreement.metrics
        values |= {f"bad_records/{kind}": count for kind, count in self.data.bad.counts().items()}
        self.writer.write(done, values)
        self.progress.update(done, values)
        if values["skipped_in_row"] >= self.experiment.max_skipped_in_row:
            self.checkpoints.wait()
            raise UserError(
                f"step {done}: loss or gradient was not finite in the last {values['skipped_in_row']:.0f} steps; "
                f"their updates were skipped and training stops. The last good checkpoint is step "
                f"{self.checkpoints.latest()}. A lower learning rate or a smaller clip_norm may help."
            )

    def _interrupt(self, step: int, state: TrainState) -> None:
        self._log(None, None)
        self.checkpoints.save(state, self.meta)
        self.checkpoints.wait()
        raise Interrupted(f"asked to stop: saved step {step}; the same command goes on from there.")
