"""Published weights of a part of a model: a run begins with them, keeps them, and then needs their file no more."""

import shutil

import fiddle as fdl
import numpy as np
import pytest

import mmjax
from mmjax.core.errors import UserError
from mmjax.core.override import override
from mmjax.encoders.text import TextEncoder
from mmjax.training.checkpoint import InitFrom
from mmjax.weights import files
from mmjax.weights.bert import BERT, BertWeights
from mmjax.weights.rules import to_theirs
from tests.devices import run_on_devices
from tests.training.test_loop import final, train
from tests.training.tiny import tiny_config
from tests.weights.bert_reference import DEPTH, HEADS, HIDDEN, POSITIONS, WIDTH, tiny_tensors, write_tiny

VOCABULARY = 300
PART = "encoders_text/"


def bert_config(width: int = WIDTH, **settings) -> fdl.Config:
    """Returns tiny_config with a frozen text encoder of the form of a tiny BERT; settings replace its fields."""
    config = tiny_config(evaluations={})
    config.keep.metric, config.optimizer.frozen, config.optimizer.schedule.warmup = None, [f"{PART}.*"], 0
    sizes = {"width": width, "depth": DEPTH, "num_heads": HEADS, "mlp_dim": HIDDEN, "max_length": POSITIONS}
    form = {"causal": False, "pool": "mean", "token_types": 2, "embedding_norm": True, "norm": "post"}
    config.model.encoders["text"] = fdl.Config(TextEncoder, VOCABULARY, **sizes, **form)
    for name, value in settings.items():
        setattr(config, name, value)
    return config


@pytest.fixture
def bert(tmp_path, monkeypatch):
    """The folder of a tiny BERT with the vocabulary of tiny_config; `train` has an encoder of its form."""
    monkeypatch.setattr("tests.training.test_loop.tiny_config", bert_config)
    return write_tiny(tmp_path / "bert", tiny_tensors(VOCABULARY))


def pretrained(folder, part: str = "encoders_text") -> dict:
    return {part: fdl.Config(BertWeights, str(folder))}


def text_of(workdir) -> dict[str, np.ndarray]:
    """Returns the tensors of the text encoder as the published file names them."""
    found = final(workdir)
    return to_theirs(BERT, {name.removeprefix(PART): leaf for name, leaf in found.items() if name.startswith(PART)})


def test_a_run_keeps_a_frozen_part_as_published_and_needs_its_file_no_more(bert, tmp_path):
    workdir, weights = tmp_path / "run", pretrained(bert)
    output = train(workdir, pretrained=weights, duration=2)
    assert f"initialised from scratch; encoders_text has the weights of {bert}" in output
    found, published = text_of(workdir), files.read(bert / "model.safetensors")
    assert found.keys() == published.keys()
    for name, tensor in published.items():
        np.testing.assert_array_equal(found[name], tensor)
    shutil.rmtree(bert)
    assert "resumed everything" in train(workdir, pretrained=weights, duration=3)
    assert mmjax.load(workdir, allow=["tests"]).encode_text(["red"]).shape == (1, 16)
    output = train(tmp_path / "tuned", pretrained=weights, duration=1, init_from=fdl.Config(InitFrom, str(workdir)))
    assert "published" not in output and "initialised the weights from" in output
    with pytest.raises(UserError, match=r"experiment.pretrained, encoders_text: weights: there is no file"):
        train(tmp_path / "missing", pretrained=weights, duration=1)


def test_what_another_run_cannot_give_is_as_published(bert, tmp_path):
    train(tmp_path / "wide", duration=1, width=2 * WIDTH)
    wide = fdl.Config(InitFrom, str(tmp_path / "wide"), allow_missing=[f"{PART}.*", "fusion/.*"])
    output = train(tmp_path / "tuned", pretrained=pretrained(bert), duration=1, init_from=wide)
    assert f"all else is fresh; what it lacks of encoders_text has the weights of {bert}" in output
    words = text_of(tmp_path / "tuned")["embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(words, tiny_tensors(VOCABULARY)["embeddings.word_embeddings.weight"])


def test_what_does_not_fit_is_a_sentence(bert, tmp_path):
    with pytest.raises(UserError, match=r"the model has no part 'encoders_txt'. Did you mean 'encoders_text'"):
        train(tmp_path, pretrained=pretrained(bert, "encoders_txt"), duration=1)
    write_tiny(bert, tiny_tensors(VOCABULARY + 1))
    with pytest.raises(UserError, match=r"word_embeddings.weight is \(301, 12\), but vocabulary/embedding of shape"):
        train(tmp_path, pretrained=pretrained(bert), duration=1)


def test_it_can_be_named_and_left_out_from_the_command_line(bert):
    config = tiny_config(pretrained=pretrained(bert))
    override(config, "pretrained.encoders_text.path=package:some_weights/model")
    assert config.pretrained["encoders_text"].path == "package:some_weights/model"
    override(config, "pretrained={}")
    assert config.pretrained == {}


def test_they_lie_as_the_parameters_do_on_several_devices(bert, tmp_path):
    source = f"""
        import pathlib
        import fiddle as fdl, jax, numpy as np
        from mmjax.core.mesh import MeshShape, make_mesh
        from mmjax.core.trees import flatten
        from mmjax.training.checkpoint import Checkpoints
        from mmjax.training.experiment import build
        from mmjax.training.initialise import initial_state
        from mmjax.training.prepare import prepare_data
        from mmjax.training.trainer import make_trainer
        from tests.training.test_pretrained import bert_config, pretrained

        folder = pathlib.Path({str(tmp_path)!r})
        config = bert_config(mesh=fdl.Config(MeshShape, data=2, fsdp=4), pretrained=pretrained(folder / "bert"))
        experiment = build(config)
        mesh = make_mesh(experiment.mesh)
        with jax.set_mesh(mesh):
            trainer = make_trainer(experiment, prepare_data(experiment.data, folder, {{}}), mesh)
            state, _ = initial_state(trainer, Checkpoints(folder / "run"), None, {{}}, experiment.pretrained)
        found, planned = flatten(state.params), flatten(trainer.abstract.params)
        assert all(leaf.sharding == planned[name].sharding for name, leaf in found.items())
        text = flatten(state.params["encoders_text"])
        assert not text["vocabulary/embedding"].sharding.is_fully_replicated
        for name, values in experiment.pretrained["encoders_text"].fill(text).items():
            np.testing.assert_array_equal(text[name], values)
        print("placed")
        """
    assert run_on_devices(source).endswith("placed\n")
