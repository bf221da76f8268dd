"""The search over meshes, rematerialisation and micro-batches, with plans made by rule instead of by the compiler."""

import dataclasses

import fiddle as fdl
import pytest

from mmjax.core.errors import UserError
from mmjax.planning import search as module
from mmjax.planning.plan import Memory, Plan
from mmjax.planning.search import Choice, first_fit, rank, search
from mmjax.planning.topology import Topology

TOPOLOGY = Topology("toy", "tpu", tuple(range(16)))


@dataclasses.dataclass
class Model:
    remat: str = "none"


@dataclasses.dataclass
class Toy:
    model: Model
    mesh: object = None
    micro_batches: int = 1


def rule(room):
    """Returns a make_plan by which sharding and remat save memory, and parts and remat cost time."""

    def make_plan(config, topology, asked_flops=1):
        fsdp = config.mesh.fsdp if config.mesh else 1
        parts = config.micro_batches
        if parts > 8:
            raise UserError("too many parts")
        saved = {"none": 1, "core": 2, "mlp": 3, "full": 4}[config.model.remat]
        needed = 64 // fsdp + 128 // parts // saved
        again = {"none": 0.5, "core": 0.0, "mlp": 0.1, "full": 0.3}[config.model.remat]
        seconds = 1.0 + 0.1 * parts + again + 0.01 * (fsdp - 4) ** 2
        memory = Memory(0, 0, 0, needed, room, {}, [])
        return Plan("toy", 16, 1, 256, {"fsdp": fsdp}, parts, 1, memory, 1, 1, {"x": seconds}, {}, 1, 0.0, 1.0)

    return make_plan


@pytest.fixture
def config():
    return fdl.Config(Toy, fdl.Config(Model))


def test_the_search_finds_what_is_fastest(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=10_000))
    seen = []
    tried = search(config, TOPOLOGY, lambda choice, plan: seen.append(choice))
    best = min(tried, key=lambda choice: rank(tried[choice]))
    assert best == Choice(fsdp=4, remat="core") and list(tried) == seen and seen[0] == Choice()
    assert not config.model.__arguments__ and config.mesh is None  # the config is left alone


def test_what_does_not_fit_is_made_to(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=100))
    plan = module.make_plan(config, TOPOLOGY)
    assert not plan.memory.fits
    tried = {Choice(): plan}
    assert first_fit(config, TOPOLOGY, tried) == Choice(micro_batches=4)
    assert tried[Choice(micro_batches=4)].memory.fits and not tried[Choice(micro_batches=2)].memory.fits
    assert rank(tried[Choice(micro_batches=4)]) < rank(plan) < rank(tried[Choice(micro_batches=2)])


def test_nothing_that_fits_is_none(config, monkeypatch):
    monkeypatch.setattr(module, "make_plan", rule(room=2))
    refused = []
    tried = {Choice(): module.make_plan(config, TOPOLOGY)}
    assert first_fit(config, TOPOLOGY, tried, lambda choice, found: refused.append((choice, found))) is None
    assert any(choice.micro_batches == 16 and str(found) == "too many parts" for choice, found in refused)
