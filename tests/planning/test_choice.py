"""What a search changes of a config, and the flags that change the same."""

import pathlib

import fiddle as fdl
import pytest

from mmjax.core.config import load_config
from mmjax.core.mesh import MeshShape
from mmjax.core.override import override
from mmjax.planning.choice import Choice

SIGLIP = f"{pathlib.Path(__file__).parents[2] / 'configs' / 'siglip.py'}:smoke"
MESH = {"data": 8, "fsdp": 1, "tensor": 1}


@pytest.fixture
def config():
    return load_config(SIGLIP)


def test_an_axis_that_is_not_chosen_stays(config):
    config.mesh = fdl.Config(MeshShape, data=2, fsdp=2, tensor=4)
    assert fdl.build(Choice(fsdp=8).apply(config).mesh) == MeshShape(data=-1, fsdp=8, tensor=4)
    assert Choice(fsdp=8).flags(config) == "--mesh data=-1,fsdp=8"
    assert fdl.build(Choice(tensor=1).apply(config).mesh) == MeshShape(data=-1, fsdp=2, tensor=1)
    assert Choice(fsdp=8, tensor=2).flags(config) == "--mesh data=-1,fsdp=8,tensor=2"


def test_the_flags_do_what_the_choice_does(config):
    choice = Choice(fsdp=4, remat="full", micro_batches=2, batch_parts=2)
    by_hand = fdl.deepcopy_with(config)
    for flag, value in zip(*[iter(choice.flags(config).split())] * 2, strict=True):
        override(by_hand, f"mesh.{value}" if flag == "--mesh" else value)
    chosen = choice.apply(config)
    assert chosen.model == by_hand.model and chosen.micro_batches == by_hand.micro_batches == 2
    assert fdl.build(chosen.mesh) == fdl.build(by_hand.mesh) == MeshShape(fsdp=4)
    assert chosen.model.encoders["text"].remat == "full" and chosen.model.encoders["image"].batch_parts == 2


def test_what_a_config_has_already_is_no_choice(config):
    same = Choice(fsdp=1, remat="core", micro_batches=1, batch_parts=1)
    assert same.without_effect(config, MESH) == Choice()
    config.model.encoders["text"].remat = "none"
    assert Choice(fsdp=8, remat="core").without_effect(config, MESH) == Choice(fsdp=8, remat="core")
    assert Choice(remat="core").flags(config) == "--set model.encoders.text.remat=core"  # the other has it
