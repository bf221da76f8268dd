"""Overriding a config by path: what fits is set, what does not is a sentence."""

import pathlib

import fiddle as fdl
import pytest

from mmjax.core.config import construct, load_config
from mmjax.core.errors import UserError
from mmjax.core.override import describe, override
from mmjax.fusion.early import Early
from mmjax.fusion.late import Late
from mmjax.fusion.missing import LearnedTokens
from mmjax.model import MultimodalModel

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.fixture
def openmoji() -> fdl.Config:
    return load_config(f"{CONFIGS / 'openmoji.py'}:smoke")


def test_override_by_path(openmoji):
    override(openmoji, "model.encoders.image.width=512")
    override(openmoji, "task.kind=sigmoid")
    override(openmoji, "optimizer.clip_norm=None")
    assert openmoji.model.encoders["image"].width == 512
    override(openmoji, "model.encoders.image.remat=none")
    assert openmoji.task.kind == "sigmoid"
    assert openmoji.model.encoders["image"].remat == "none"
    assert openmoji.optimizer.clip_norm is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.encoders.image.widht=512", r"no 'widht'. Did you mean 'width'\? Valid names here: .*patch_size"),
        ("model.encoder.image.width=512", r"no 'encoder'. Did you mean 'encoders'\?"),
        ("model.encoders.imag.width=512", r"Did you mean 'image'\? Valid names here: image, text"),
        ("duration", r"expected PATH=VALUE"),
        ("optimizer.learning_rate=fast", r"expected float; the present value is 0.00"),
        ("model.encoders.image.width=True", r"expected int; the present value is 64"),
        ("model.encoders.image.width=64.5", r"expected int; the present value is 64"),
        ("data.transforms.image.scale=0.5", r"expected tuple\[float, float\]; the present value is \(0.9, 1.0\)"),
        ("optimizer=adam", r"expected one of its own values to be set instead: name, learning_rate"),
        ("mesh=1", r"expected one of its own values to be set instead: data, fsdp, tensor"),
        ("init_from=runs/base", r"expected mmjax.training.checkpoint.InitFrom \| None"),
    ],
)
def test_a_wrong_override_is_a_sentence(openmoji, assignment, message):
    with pytest.raises(UserError, match=message):
        override(openmoji, assignment)


def test_every_described_path_can_be_set(openmoji):
    lines = describe(openmoji).splitlines()
    assert "model.encoders.image.width = 64" in lines
    assert "mesh.fsdp = 1  (default)" in lines
    for line in lines:
        path, _, value = line.removesuffix("  (default)").partition(" = ")
        if not path.startswith("optimizer.bounds."):  # a parameter's path is itself one with slashes, not with dots
            override(openmoji, f"{path}={value}")


def test_values_take_the_type_of_the_parameter(openmoji):
    override(openmoji, "data.batch_size=1e3")
    override(openmoji, "optimizer.frozen=encoders/.*")
    override(openmoji, "optimizer.learning_rate=1")
    assert (openmoji.data.batch_size, openmoji.optimizer.frozen) == (1000, ("encoders/.*",))
    assert isinstance(openmoji.data.batch_size, int)


def test_an_object_is_swapped_by_its_import_path():
    config = fdl.Config(MultimodalModel, {}, fdl.Config(Early, width=8, depth=3, num_heads=2, mlp_dim=16, pool="mean"))
    override(config, "fusion=mmjax.fusion.late.Late")
    assert config.fusion.__fn_or_cls__ is Late and config.fusion.width == 8
    assert "pool" not in config.fusion.__arguments__
    override(config, "fusion.rule=product")
    assert fdl.build(config).fusion == Late(width=8, rule="product")
    with pytest.raises(UserError, match=r"Did you mean 'Late'"):
        override(config, "fusion=mmjax.fusion.late.Lat")
    with pytest.raises(UserError, match=r"no module 'mmjax\.fusion\.latest'"):
        override(config, "fusion=mmjax.fusion.latest.Late")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mmjax.tasks.supervised.Classification", "Classification cannot be used here; expected Module"),
        (".Late", "there is no module ''"),
        ("..late.Late", r"there is no module '\.\.late'|there is no module '\.'"),
    ],
)
def test_a_swap_that_cannot_be_is_a_sentence(value, message):
    config = fdl.Config(MultimodalModel, {}, fdl.Config(Early, width=8, depth=3, num_heads=2, mlp_dim=16))
    with pytest.raises(UserError, match=message):
        override(config, f"fusion={value}")


def test_what_is_none_is_set_by_its_import_path_and_what_it_lacks_is_named():
    config = fdl.Config(MultimodalModel, {}, fdl.Config(Early, width=8, depth=3, num_heads=2, mlp_dim=16))
    override(config, "missing=mmjax.fusion.missing.LearnedTokens")
    assert isinstance(construct(config).missing, LearnedTokens)
    override(config, "missing=mmjax.fusion.shared_specific.SharedSpecific")
    with pytest.raises(UserError, match=r"missing: SharedSpecific needs a value of width, mlp_dim"):
        construct(config)
    for size in ("width=8", "mlp_dim=16"):
        override(config, f"missing.{size}")
    assert construct(config).missing.width == 8
