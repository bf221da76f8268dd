"""The loop never waits for the device: neither for a result of the newest step, nor in a copy that nobody asked for."""

import contextlib
import dataclasses
import io
import itertools
import json
import types

import fiddle as fdl
import jax
import numpy as np
import pytest
from rich.console import Console

from mmjax.training import loop, metrics
from mmjax.training.checkpoint import Keep
from mmjax.training.loop import fit
from tests.training.tiny import tiny_config


class Pending:
    """A result of a step which can be read once a later step was started; any other use of it fails."""

    newest = 0

    def __init__(self, value: jax.Array, step: int):
        self.value, self.step = value, step

    def __array__(self, *args, **kwargs) -> np.ndarray:
        assert self.step < Pending.newest, f"the host waits for step {self.step}, the newest"
        return np.asarray(self.value, *args, **kwargs)


def guarded_fit(monkeypatch, workdir, steps: int = 5) -> None:
    """Trains; between the first step's end and the last's no result of the newest step and no implicit copy passes.

    The batch alone may be copied, where the loop places it.
    The CPU's transfer guard stops copies to the device only, as its arrays lie in the host's memory; `Pending` stands
    in for it the other way.
    """
    window = contextlib.ExitStack()
    make, after, place = loop.make_trainer, loop.Run._after_step, loop.global_batch

    def pending(*args):
        trainer = make(*args)

        def step(state, batch):
            Pending.newest += 1
            found = trainer.step(real(state), batch)
            return jax.tree.map(lambda leaf: Pending(leaf, Pending.newest), found)

        return dataclasses.replace(trainer, step=step)

    def real(tree):
        return jax.tree.map(lambda leaf: leaf.value if isinstance(leaf, Pending) else leaf, tree)

    def placed(*args):
        with jax.transfer_guard("allow"):
            return place(*args)

    def after_step(self, step, state):
        if step == steps:
            window.close()
            Pending.newest += 1
        found = after(self, step, real(state) if step == steps else state)
        if step == 1:
            window.enter_context(jax.transfer_guard("disallow"))
        return found

    monkeypatch.setattr(Pending, "newest", 0)
    monkeypatch.setattr(loop, "make_trainer", pending)
    monkeypatch.setattr(loop, "global_batch", placed)
    monkeypatch.setattr(loop.Run, "_after_step", after_step)
    config = tiny_config(duration=f"{steps} steps", evaluations={}, keep=fdl.Config(Keep, every=100))
    with window:
        fit(config, workdir, Console(file=io.StringIO()))


def test_no_step_waits_on_the_host(monkeypatch, tmp_path):
    guarded_fit(monkeypatch, tmp_path)
    assert Pending.newest == 6
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def at_once(self, step, metrics):
    return None if step is None else (step, {name: float(value) for name, value in jax.device_get(metrics).items()})


def to_be_copied(batch, batch_size, mesh):
    return batch


def waits(self):
    return np.asarray(1.0) + np.ones(3) @ jax.numpy.ones(3)


@pytest.mark.parametrize(
    ("place", "name", "planted", "told"),
    [
        (loop.Delayed, "swap", at_once, "the host waits for step 1, the newest"),
        (loop, "global_batch", to_be_copied, "Disallowed host-to-device transfer"),
        (loop.Meter, "read", waits, "Disallowed host-to-device transfer"),
    ],
)
def test_a_planted_wait_is_found(monkeypatch, tmp_path, place, name, planted, told):
    monkeypatch.setattr(place, name, planted)
    with pytest.raises((AssertionError, jax.errors.JaxRuntimeError), match=told):
        guarded_fit(monkeypatch, tmp_path)


def test_every_logged_record_has_the_share_of_input_wait(monkeypatch, tmp_path):
    """By a clock that goes on by a second whenever somebody looks: of a step's three or more the wait takes one."""
    clock = types.SimpleNamespace(monotonic=itertools.count().__next__)
    for module in (loop, metrics):
        monkeypatch.setattr(module, "time", clock)
    fit(tiny_config(duration="4 steps", evaluations={}, log_every=2), tmp_path, Console(file=io.StringIO()))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4]
    assert all(0 < record["input_wait_share"] <= 1 / 3 for record in records)


def test_the_share_is_of_the_last_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    meter = metrics.Meter(batch_size=8, window=2)
    for seconds, waited in ((10.0, 10.0), (4.0, 1.0), (6.0, 2.0)):
        now[0] += seconds
        meter.add(waited)
    assert meter.read() == {"examples_per_second": 2 * 8 / 10, "input_wait_share": 0.3}
