"""Configs: overriding by path, errors with the nearest match, JSON that runs no code."""

import json
import pathlib

import fiddle as fdl
import pytest

from mmjax.core import config
from mmjax.core.errors import UserError

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.fixture
def openmoji() -> fdl.Config:
    return config.load_config(f"{CONFIGS / 'openmoji.py'}:smoke")


@pytest.mark.parametrize("name", ["openmoji.py", "openmoji.py:smoke", "clip.py:L/14", "siglip.py:So400m/14"])
def test_json_round_trip(name):
    text = config.to_json(config.load_config(str(CONFIGS / name)))
    assert config.to_json(config.from_json(text)) == text


def test_override_by_path(openmoji):
    config.override(openmoji, "model.encoders.image.width=512")
    config.override(openmoji, "task.kind=sigmoid")
    config.override(openmoji, "optimizer.clip_norm=None")
    assert openmoji.model.encoders["image"].width == 512
    assert openmoji.task.kind == "sigmoid"
    assert openmoji.optimizer.clip_norm is None


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.encoders.image.widht=512", r"no 'widht'. Did you mean 'width'\? Valid names here: .*patch_size"),
        ("model.encoder.image.width=512", r"no 'encoder'. Did you mean 'encoders'\?"),
        ("model.encoders.imag.width=512", r"Did you mean 'image'\? Valid names here: image, text"),
        ("duration", r"expected PATH=VALUE"),
        ("optimizer.learning_rate=fast", r"expected a number, as the present value 0.00"),
        ("model.encoders.image.width=True", r"expected a int"),
    ],
)
def test_a_wrong_override_is_a_sentence(openmoji, assignment, message):
    with pytest.raises(UserError, match=message):
        config.override(openmoji, assignment)


def test_a_missing_file_names_the_nearest(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(UserError, match=r"no such file. Did you mean 'configs/openmoji.py'\?"):
        config.load_config("configs/openmojis.py")


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("subprocess", "Popen"), ("mmjax.training.prepare", "write_text"), ("builtins", "eval")],
)
def test_a_stored_config_cannot_name_other_code(openmoji, module, name):
    stored = json.loads(config.to_json(openmoji))
    for node in stored["objects"].values():
        if node.get("type", {}).get("name") == "Contrastive" or "Contrastive" in json.dumps(node.get("metadata", "")):
            break
    text = json.dumps(stored).replace('"mmjax.tasks.contrastive"', f'"{module}"').replace('"Contrastive"', f'"{name}"')
    assert f'"{module}"' in text
    with pytest.raises(UserError, match="outside the allowed packages"):
        config.from_json(text)


def test_set_everywhere_leaves_what_is_set(openmoji):
    openmoji.model.encoders["text"].dtype = "float64"
    config.set_everywhere(openmoji.model, "dtype", "bfloat16")
    assert openmoji.model.encoders["image"].dtype == "bfloat16"
    assert openmoji.model.encoders["text"].dtype == "float64"
    assert openmoji.model.fusion.projections["image"].dtype == "bfloat16"


def test_a_constructors_error_is_its_sentence_alone(openmoji):
    config.override(openmoji, "task.kind=softmx")
    with pytest.raises(UserError) as caught:
        config.construct(openmoji.task)
    assert str(caught.value) == (
        "Contrastive.kind: 'softmx' is unknown. Did you mean 'softmax'? Expected one of: sigmoid, softmax."
    )


def test_every_described_path_can_be_set(openmoji):
    lines = config.describe(openmoji).splitlines()
    assert "model.encoders.image.width = 64" in lines
    assert "mesh.fsdp = 1  (default)" in lines
    for line in lines:
        path, _, value = line.removesuffix("  (default)").partition(" = ")
        if not path.startswith("optimizer.bounds."):  # a parameter's path is itself one with slashes, not with dots
            config.override(openmoji, f"{path}={value}")
