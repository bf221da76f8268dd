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
from tests.devices import run_on_hosts
from tests.training.tiny import tiny_config


class Pending:
    """A result of a step which can be read once a later step was started; any other use of it fails."""

    newest = 0

    def __init__(self, value: jax.Array, step: int):
        self.value, self.step = value, step

    def __array__(self, *args, **kwargs) -> np.ndarray:
        assert self.step < Pending.newest, f"the host waits for step {self.step}, the newest"
        return np.asarray(self.value, *args, **kwargs)


def guarded_fit(monkeypatch, workdir, steps: int = 6) -> None:
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
    assert Pending.newest == 7
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


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
    fit(tiny_config(evaluations={}, log_every=2), tmp_path, Console(file=io.StringIO()))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [2, 4, 6]
    assert all(0 < record["input_wait_share"] <= 1 / 3 for record in records)


def test_the_share_is_of_the_last_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    meter = metrics.Meter(batch_size=8, window=2)
    for seconds, waited in ((10.0, 10.0), (4.0, 1.0), (6.0, 2.0)):
        now[0] += seconds
        meter.add(waited)
    assert meter.read() == {"examples_per_second": 2 * 8 / 10, "input_wait_share": 0.3}


HOSTS = """
import io, json, os, signal
import fiddle as fdl
from jax.experimental import multihost_utils
from rich.console import Console
from mmjax.training import loop
from mmjax.training.agreement import Agreement
from mmjax.training.checkpoint import Keep
from mmjax.training.stop import Interrupted
from tests.training.tiny import tiny_config

first, asked, seen = jax.process_index() == 0, 7, {"step": 0, "read": [], "barriers": []}
start = Agreement.__init__

class Pending:
    def __init__(self, value):
        self.value, self.step = value, seen["step"]

    def addressable_data(self, index):
        seen["read"].append((self.step, seen["step"]))
        return self.value.addressable_data(index)

def spied(self, mesh):
    start(self, mesh)
    largest = self._largest
    self._largest = lambda said: Pending(largest(said))

def barrier(name):
    real = getattr(multihost_utils, name)
    def called(*args, **kwargs):
        if 0 < seen["step"] < last:
            seen["barriers"].append((name, seen["step"]))
        return real(*args, **kwargs)
    setattr(multihost_utils, name, called)

for name in ("process_allgather", "sync_global_devices", "broadcast_one_to_all"):
    barrier(name)
Agreement.__init__, after = spied, loop.Run._after_step
last = 100

def after_step(self, step, state):
    seen["step"] = step
    if step == asked and not first:
        os.kill(os.getpid(), signal.SIGTERM)
    return after(self, step, state)

def interrupt(self, step, state):
    global last
    last = 0
    return stopped(self, step, state)

loop.Run._after_step, stopped, loop.Run._interrupt = after_step, loop.Run._interrupt, interrupt
if not first:  # this host's input is slow
    loop.Meter.read = lambda self: {"examples_per_second": 1.0, "input_wait_share": 0.75}
config = tiny_config(duration="40 steps", evaluations={}, keep=fdl.Config(Keep, every=100))
try:
    loop.fit(config, WORKDIR, Console(file=io.StringIO()))
except Interrupted as error:
    print("found", json.dumps([str(error), seen]), flush=True)
"""


def test_two_processes_agree_without_a_wait(tmp_path):
    """One is asked to stop after step 7: both do after step 13, and no message is read before 3 more steps began."""
    outputs = run_on_hosts(HOSTS.replace("WORKDIR", repr(str(tmp_path))), num_devices=1)
    for said, seen in [json.loads(out.rpartition("found ")[2].splitlines()[0]) for out in outputs]:
        assert "asked to stop: saved step 13;" in said
        assert seen["barriers"] == [] and seen["read"] == [[5, 8], [10, 13]]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 14))
    assert not any("input_wait_share_max" in record for record in records[:6])
    assert [record["input_wait_share_max"] for record in records[8:]] == [0.75] * 5  # of process 1; process 0 writes
