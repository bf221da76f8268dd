"""The search over meshes, rematerialisation and micro-batches, with plans made by rule instead of by the compiler."""

import dataclasses
import io
import math

import fiddle as fdl
import pytest
from rich.console import Console

from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape
from mmjax.planning import search as module
from mmjax.planning.choice import Choice
from mmjax.planning.estimate import Collective
from mmjax.planning.memory import Memory
from mmjax.planning.plan import Plan
from mmjax.planning.report import report, search_table
from mmjax.planning.search import advice, best_of, first_fit, rank, search
from mmjax.planning.topology import Topology

TOPOLOGY = Topology("toy", "tpu", tuple(range(16)))


@dataclasses.dataclass
class Model:
    remat: str = "none"
    batch_parts: int = 1


@dataclasses.dataclass
class Toy:
    model: Model
    mesh: object = None
    micro_batches: int = 1


def rule(room, best_tensor=1):
    """Returns a make_plan by which sharding and remat save memory, and parts, remat and another tensor cost time."""

    def make_plan(config, topology, asked_flops=1):
        fsdp = config.mesh.fsdp if config.mesh else 1
        parts = config.micro_batches
        if parts > 8:
            raise UserError("too many parts")
        if fsdp == 32:
            raise UserError("mesh: cannot be laid over these devices")
        saved = {"none": 1, "core": 2, "mlp": 3, "full": 4}[config.model.remat]
        needed = 64 // fsdp + 128 // parts // saved
        again = {"none": 0.5, "core": 0.0, "mlp": 0.1, "full": 0.3}[config.model.remat]
        seconds = 1.0 + 0.1 * parts + again + 0.01 * (fsdp - 4) ** 2
        memory = Memory(0, 0, 0, needed, room, {}, [])
        tensor = config.mesh.tensor if config.mesh else 1
        seconds += 0.1 * (tensor != best_tensor)
        mesh = {"data": 16 // fsdp // tensor, "fsdp": fsdp, "tensor": tensor}
        return Plan("toy", 16, 1, 256, mesh, parts, 1, memory, 1, 1, {"x": seconds}, {}, 1, 0.0, 1.0)

    return make_plan


@pytest.fixture
def config():
    return fdl.Config(Toy, fdl.Config(Model))


def test_the_search_finds_what_is_fastest(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=10_000))
    seen = []
    tried = search(config, TOPOLOGY, lambda choice, plan: seen.append(choice))
    assert best_of(tried) == Choice(fsdp=4, remat="core") and list(tried) == seen and seen[0] == Choice()
    assert Choice(fsdp=4, remat="core", batch_parts=8) in tried
    assert not config.model.__arguments__ and config.mesh is None  # the config is left alone
    assert advice(config, tried) == ""  # it fits as it is


def test_the_search_tries_tensor_parallelism_with_the_best_fsdp(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=10_000, best_tensor=2))
    tried = search(config, TOPOLOGY)
    assert best_of(tried) == Choice(fsdp=4, tensor=2, remat="core")
    assert {choice.tensor for choice in tried} == {None, 2, 4}  # 1 is what it has


def test_what_does_not_fit_is_made_to(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=90))
    plan = module.make_plan(config, TOPOLOGY)
    tried = {Choice(): plan}
    assert not plan.memory.fits
    assert first_fit(config, TOPOLOGY, tried) == Choice(fsdp=8, remat="full")
    assert list(tried) == [Choice(), Choice(fsdp=8), Choice(remat="full"), Choice(fsdp=8, remat="full")]
    assert advice(config, tried) == "It fits with: --mesh fsdp=8 --set model.remat=full (0.0 GiB)"
    assert rank(tried[Choice(fsdp=8, remat="full")]) < rank(plan)


@pytest.mark.parametrize(("devices", "needed"), [(4, 4), (256, 256)])
def test_a_state_that_is_large_is_sharded_over_all_devices(config, monkeypatch, devices, needed):
    made = rule(room=10_000)

    def make_plan(config, topology, asked_flops=1):
        plan, fsdp = made(config, topology), config.mesh.fsdp if config.mesh else 1
        memory = dataclasses.replace(plan.memory, needed=1000 // fsdp, capacity=1000 // needed)
        return dataclasses.replace(plan, devices=devices, memory=memory)

    monkeypatch.setattr(module, "make_plan", make_plan)
    tried = {Choice(): module.make_plan(config, TOPOLOGY)}
    assert first_fit(config, TOPOLOGY, tried) == Choice(fsdp=needed)


def test_ever_more_micro_batches_are_tried(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=16))
    tried = {Choice(): module.make_plan(config, TOPOLOGY)}
    assert first_fit(config, TOPOLOGY, tried) == Choice(fsdp=8, remat="full", micro_batches=4)


def test_what_the_config_has_already_is_not_tried_again(config, monkeypatch):
    config.mesh = fdl.Config(MeshShape, fsdp=8)
    config.model.remat = "full"
    monkeypatch.setattr(module, "make_plan", rule(room=24))
    tried = {Choice(): module.make_plan(config, TOPOLOGY)}
    assert first_fit(config, TOPOLOGY, tried) == Choice(micro_batches=2)
    assert list(tried) == [Choice(), Choice(micro_batches=2)]


def test_choices_that_are_not_possible_are_survived(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=10_000))
    refused = {}

    def each(choice, found):
        if isinstance(found, UserError):
            refused[choice] = found

    monkeypatch.setattr(module, "_fsdp", lambda best, plan: (Choice(fsdp=size) for size in (4, 32, 16)))
    tried = search(config, TOPOLOGY, each)
    assert Choice(fsdp=32) in refused and Choice(fsdp=16) in tried


def test_nothing_that_fits_is_none(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=2))
    refused = []
    tried = {Choice(): module.make_plan(config, TOPOLOGY)}
    assert first_fit(config, TOPOLOGY, tried, lambda choice, found: refused.append((choice, found))) is None
    assert any(choice.micro_batches == 16 and str(found) == "too many parts" for choice, found in refused)
    assert advice(config, tried).startswith("Nothing that was tried fits")
    assert search(config, TOPOLOGY).keys() == tried.keys()  # and is not made fast


def test_a_report_without_a_chip_has_collectives_and_the_measured_rate(config):
    plan = dataclasses.replace(
        rule(room=90)(config, TOPOLOGY), parts={}, collectives={"all-reduce": Collective(3, 25e5, math.nan)}
    )
    console = Console(file=io.StringIO(), width=200)
    console.print(report(plan, measured=1982.0))
    told = " ".join(console.file.getvalue().split())
    assert "│ all-reduce │ 3 │ 2.5 │ │ compiler │" in told and "│ examples/s of this machine │ 1,982 │" in told
    assert "nan" not in told and "a host must make" not in told


def test_the_table_holds_what_fits_and_counts_the_rest(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=90))
    tried = search(config, TOPOLOGY)
    table = search_table(tried, most=100)
    fitting = [plan for plan in tried.values() if plan.memory.fits]
    assert table.row_count == len(fitting) < len(tried)
    assert table.title == f"the best of {len(fitting)} that fit, {len(tried)} tried"
