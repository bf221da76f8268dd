"""Configs: files, errors as sentences, JSON that runs no code."""

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


def test_a_missing_file_names_the_nearest(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(UserError, match=r"no such file. Did you mean 'configs/openmoji.py'\?"):
        config.load_config("configs/openmojis.py")
    for name in ("config/openmoji.py", "openmoji"):  # of another folder, and without an ending
        with pytest.raises(UserError, match=r"no such file. Did you mean 'configs/openmoji.py'\?"):
            config.load_config(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", r"own.py: line 1 fails with SyntaxError"),
        (
            "import numpy\nimport nosuchmodule",
            r"own.py: line 2 fails with ModuleNotFoundError: No module .*nosuchmodule",
        ),
        ("def get_config():\n    return 1 / 0", r"own.py: line 2 fails with ZeroDivisionError"),
        ("x = 1", r"own.py: the file has no function get_config"),
        (
            "import fiddle, mmjax.training.optimizer as o\n"
            "def get_config():\n    return fiddle.Config(o.Optimizer, lerning_rate=1)",
            r"line 3 fails with TypeError: .*lerning_rate",
        ),
    ],
)
def test_a_file_that_fails_is_a_sentence_with_its_line(monkeypatch, tmp_path, text, message):
    (tmp_path / "own.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    for name in ("own.py", str(tmp_path / "own.py")):
        with pytest.raises(UserError, match=message):
            config.load_config(name)


def test_an_unknown_size_names_the_file_and_the_sizes():
    with pytest.raises(UserError, match=r"siglip.py:B16: ViT variant 'B16': expected NAME/PATCH .*'B/16'.*So400m"):
        config.load_config(str(CONFIGS / "siglip.py:B16"))


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
    openmoji.task.kind = "softmx"
    with pytest.raises(UserError) as caught:
        config.construct(openmoji.task)
    assert str(caught.value) == (
        "Contrastive.kind: 'softmx' is unknown. Did you mean 'softmax'? Expected one of: sigmoid, softmax."
    )
