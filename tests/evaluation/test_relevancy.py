"""Relevancy and rollout: the published recursions by hand, every fusion, what is missing, what is planted."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream, Tokens
from mmjax.decoders.head import Head
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.resnet import ResNetEncoder
from mmjax.evaluation.curves import deletion, insertion
from mmjax.evaluation.parts import keep_parts
from mmjax.evaluation.relevancy import relevancy, rollout, rollout_matrix
from mmjax.evaluation.scores import Cosine, Probability, evidence_of
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.co_attention import CoAttention
from mmjax.fusion.hallucination import Hallucination
from mmjax.fusion.late import Late
from mmjax.fusion.missing import LearnedTokens
from mmjax.fusion.shared_specific import SharedSpecific
from mmjax.layers.hooks import PERTURBATIONS
from mmjax.model import MultimodalModel
from tests.evaluation import explained, planted
from tests.fusion.cases import FUSIONS
from tests.quick import jit

SMALL = {"depth": 1, "scan": False}


def both(model, params, streams, score):
    """Returns relevancy and rollout, compiled as one program."""
    score = evidence_of(score)
    return jit(lambda p, s: (relevancy(model, p, s, score), rollout(model, p, s)))(params, streams)


def check(found, rolled, streams):
    """What holds for every model: shapes, signs, nothing for what is missing or padded, shares of the rollout."""
    there = {name: np.asarray(stream.mask).any(axis=1) for name, stream in streams.items()}
    some = np.stack(list(there.values())).any(axis=0)
    np.testing.assert_allclose(sum(np.asarray(values).sum(axis=1) for values in rolled.values()), some, atol=1e-5)
    for name, values in found.tokens.items():
        for each in (np.asarray(values), np.asarray(rolled[name])):
            assert np.isfinite(each).all() and each.min() >= 0 and each.shape == (len(some), 5)
            assert not each[~there[name]].any() and (each[there[name]].sum(axis=1) > 0).all(), name
            if streams[name].mask.shape == each.shape:
                assert not each[~np.asarray(streams[name].mask)].any()
        np.testing.assert_array_equal(found.attended[name], there[name])


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion(name):
    streams = explained.streams()
    model = explained.fused(name, **SMALL)
    params = explained.params_of(model, streams)
    found, rolled = both(model, params, streams, Probability())
    check(found, rolled, streams)
    logits = jit(model.apply)({"params": params}, streams).predictions["label"]
    np.testing.assert_allclose(found.score, (logits - logits.mean(axis=1, keepdims=True)).max(axis=1), atol=1e-4)


@pytest.mark.parametrize(("pools", "more"), [(("first", "last"), {}), (("attention", "mean"), {"remat": "full"})])
def test_towers_of_scanned_layers(pools, more):
    streams = explained.streams()
    model = explained.towers(image=pools[0], text=pools[1], batch_parts=2, **more)
    params = explained.params_of(model, streams)
    both_there = jax.tree.map(lambda leaf: leaf[:1], streams)
    found, rolled = both(model, params, both_there, Cosine())
    assert sum(float(values.sum()) for values in rolled.values()) == pytest.approx(1, abs=1e-5)
    shapes = {name: values.shape for name, values in found.tokens.items()}
    assert shapes == {"image": (1, 5 if pools[0] == "first" else 4), "text": (1, 5)}
    embeddings = model.apply({"params": params}, both_there).embeddings
    np.testing.assert_allclose(found.score, np.sum(embeddings["image"] * embeddings["text"], axis=1), atol=1e-5)


def test_rollout_shares_towers_alike_whatever_their_depth():
    streams = jax.tree.map(lambda leaf: leaf[:1], explained.streams())
    model = explained.towers()
    deeper = {"image": model.encoders["image"], "text": model.encoders["text"].clone(depth=4)}
    model = model.clone(encoders=deeper)
    rolled = jit(lambda p, s: rollout(model, p, s))(explained.params_of(model, streams), streams)
    assert [float(values.sum()) for values in rolled.values()] == pytest.approx([0.5, 0.5], abs=1e-5)


@pytest.mark.parametrize("missing", [SharedSpecific(16, 12), LearnedTokens(2), Hallucination(16, 12)])
def test_through_what_stands_in_for_the_missing(missing):
    streams = explained.streams()
    model = explained.fused("early", **SMALL).clone(missing=missing)
    rows = jax.tree.map(lambda leaf: leaf[:1], streams)  # nothing is missing
    found, rolled = both(model, explained.params_of(model, streams), rows, Probability())
    assert sum(float(values.sum()) for values in rolled.values()) == pytest.approx(1, abs=1e-5)
    for name in streams:
        assert found.attended[name].all() and float(found.tokens[name].sum()) > 0


def test_a_teacher_takes_no_part():
    streams = explained.streams()
    model = explained.fused("gated", **SMALL)
    params = explained.params_of(model, streams)
    found, rolled = both(model, params, streams, Probability())
    taught = model.clone(teachers={"other": explained.fused("early", **SMALL)})
    own = explained.params_of(taught, streams) | params
    others, beside = both(taught, own, streams, Probability())
    for name in streams:
        np.testing.assert_allclose(beside[name], rolled[name], atol=1e-6)
        np.testing.assert_allclose(others.tokens[name], found.tokens[name], atol=1e-6)


def test_bfloat16_rolls_out_as_float32_does():
    streams = jax.tree.map(lambda leaf: leaf[:1], explained.streams())
    model = explained.towers().clone()
    params = explained.params_of(model, streams)
    low = model.clone(encoders={name: each.clone(dtype=jnp.bfloat16) for name, each in model.encoders.items()})
    weights = jit(lambda p, s: low.apply({"params": p}, s, mutable=["intermediates"])[1])(params, streams)
    stored = weights["intermediates"]["encoders_image"]
    layers = next(leaf for leaf in jax.tree.leaves(stored) if leaf.ndim == 5)  # [depth, B, H, N, N]
    expected = rollout_matrix(list(layers))[:, 0]  # of the class token that is pooled
    found = jit(lambda p, s: rollout(low, p, s))(params, streams)["image"]
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-4)


def attention_and_gradients(model, params, streams, score):
    """Returns flat path -> (weights, gradient of the score for them), without what is tested here."""
    stored = jit(lambda p: model.apply({"params": p}, streams, mutable=["intermediates"])[1])(params)
    weights = jax.tree.map(lambda leaf: leaf[0], stored["intermediates"], is_leaf=lambda x: isinstance(x, tuple))

    def total(perturbations):
        return score(model.apply({"params": params, PERTURBATIONS: perturbations}, streams)).sum()

    return weights, jit(jax.grad(total))(jax.tree.map(jnp.zeros_like, weights))


def bar(weights, gradient):
    """Equation 5 of Chefer et al."""
    return np.maximum(np.asarray(weights) * np.asarray(gradient), 0).mean(axis=-3)


def test_equals_the_published_recursion_of_a_class_token():
    streams = {"image": explained.streams(np.ones((2, 2), bool))["image"]}
    encoder = ImageEncoder(patch_size=4, pool="first", **explained.TOWER)
    model = MultimodalModel({"image": encoder}, Late(8), {"label": Head(3)})
    params = explained.params_of(model, streams)
    score = evidence_of(Probability())
    found, rolled = both(model, params, streams, Probability())
    weights, gradients = attention_and_gradients(model, params, streams, score)
    path = ("encoders_image", "transformer", "blocks", "attention", "attention")
    for key in path:
        weights, gradients = weights[key], gradients[key]
    relevant = np.eye(5)[None]
    for layer in bar(weights, gradients):
        relevant = relevant + layer @ relevant
    np.testing.assert_allclose(found.tokens["image"], relevant[:, 0], atol=1e-5)
    matrix = np.asarray(rollout_matrix(list(weights)))
    np.testing.assert_allclose(matrix.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(rolled["image"], matrix[:, 0], atol=1e-5)


class Words(nn.Module):
    """values [B, N, C] -> tokens, without attention."""

    @nn.compact
    def __call__(self, stream, rng=None):
        return Tokens(nn.Dense(8, name="linear")(stream.values), stream.mask)


def words(fusion):
    """Returns (model, params, streams) of two modalities of 3 and 4 words under a fusion."""
    rng = np.random.default_rng(0)
    streams = {
        name: Stream(rng.normal(size=(2, count, 6)).astype(np.float32), np.ones((2, count), bool))
        for name, count in {"a": 3, "b": 4}.items()
    }
    model = MultimodalModel({name: Words() for name in streams}, fusion, {"label": Head(3)})
    return model, explained.params_of(model, streams), streams


def fusion_weights(model, params, streams):
    """Returns the fusion's weights and gradients as bars, nested by name."""
    weights, gradients = attention_and_gradients(model, params, streams, evidence_of(Probability()))
    return jax.tree.map(bar, weights["fusion"], gradients["fusion"])


def blocks(start):
    """Returns R [B, N_m, 7] of two modalities of 3 and 4 tokens, each token itself."""
    eye = np.eye(7)[None].repeat(2, axis=0)
    return {"a": eye[:, :3], "b": eye[:, 3:]} if start is None else start


def test_equals_the_recursion_of_co_attention_by_hand():
    model, params, streams = words(CoAttention(8, 1, 2, 12, scan=False, pool="last"))
    found, _ = both(model, params, streams, Probability())
    layer = fusion_weights(model, params, streams)["layers_0"]
    start, end = blocks(None), {}
    for name, other in (("a", "b"), ("b", "a")):
        crossed = start[name] + layer[f"cross_{name}"]["attention"]["attention"] @ start[other]
        end[name] = crossed + layer[f"self_{name}"]["attention"]["attention"] @ crossed
    expected = (end["a"][:, -1] + end["b"][:, -1]) / 2
    np.testing.assert_allclose(np.concatenate([found.tokens["a"], found.tokens["b"]], axis=1), expected, atol=1e-5)


def test_equals_the_recursion_of_bottlenecks_by_hand():
    model, params, streams = words(Bottleneck(8, 2, 2, 12, num_bottlenecks=2, pool="last"))
    found, _ = both(model, params, streams, Probability())
    layers = fusion_weights(model, params, streams)["fused"]
    relevant, shared = blocks(None), np.zeros((2, 2, 7))
    for number in range(2):
        updates = []
        for name in ("a", "b"):
            row = np.concatenate([shared, relevant[name]], axis=1)
            row = row + layers[f"block_{name}"]["attention"]["attention"][number] @ row
            updates.append(row[:, :2])
            relevant[name] = row[:, 2:]
        shared = (updates[0] + updates[1]) / 2
    expected = (relevant["a"][:, -1] + relevant["b"][:, -1]) / 2
    np.testing.assert_allclose(np.concatenate([found.tokens["a"], found.tokens["b"]], axis=1), expected, atol=1e-5)


def test_without_attention_it_is_gradient_times_input():
    """A ResNet and late fusion: nothing attends to anything, and the result says so."""
    streams = {"image": Stream(explained.streams()["image"].values[:2], np.array([[True], [False]]))}
    encoder = ResNetEncoder((1,), bottleneck=False, width=8, stem="small", num_groups=4)
    model = MultimodalModel({"image": encoder}, Late(8), {"label": Head(3)})
    params = explained.params_of(model, streams)
    found, _ = both(model, params, streams, Probability())
    assert not np.asarray(found.attended["image"]).any()
    values = np.asarray(found.tokens["image"])
    assert values[0].sum() > 0 and not values[1].any()


@pytest.fixture(scope="module")
def explained_patches():
    """Returns (parameters, streams, classes, the planted places, relevancy, rollout) of 64 unseen pictures."""
    params = planted.learned()
    streams, label, place = planted.planted(64, 10_000)
    rows = np.flatnonzero(label < 2)  # the others have none
    rows = np.resize(rows, 64)
    streams, label, place = jax.tree.map(lambda leaf: leaf[rows], (streams, label, place))
    return params, streams, label, place, *both(planted.MODEL, params, streams, Probability())


def test_finds_the_planted_patch(explained_patches):
    """Rollout nearly always; relevancy in four of five: a sure model has little gradient left for more attention."""
    params, streams, label, place, found, rolled = explained_patches
    assert np.mean(np.argmax(planted.answers(params, streams)["label"], axis=1) == label) > 0.95
    assert np.mean(np.argmax(rolled["image"], axis=1) == place) > 0.9
    assert np.mean(np.argmax(found.tokens["image"], axis=1) == place) > 0.7
    assert np.sum(found.tokens["image"]) > 3 * np.sum(found.tokens["text"])


def test_deleting_relevant_patches_falls_faster_than_deleting_random_ones(explained_patches):
    params, streams, label, _, found, _ = explained_patches
    random = np.random.default_rng(0).random((6, 16))
    gaps = []
    for row in range(6):
        one = jax.tree.map(lambda leaf, row=row: np.repeat(leaf[row : row + 1], 64, axis=0), streams)

        def value(keep, one=one, row=row):  # 64 rows, as the program is compiled for them
            keep = np.concatenate([keep, np.ones((64 - len(keep), 16), bool)])
            image = jax.tree.map(np.asarray, keep_parts(one["image"], keep))
            logits = planted.answers(params, one | {"image": image})["label"]
            return np.asarray(jax.nn.softmax(logits))[:11, label[row]]

        orders = (np.asarray(found.tokens["image"])[row], random[row])
        (fall, other), (rise, rest) = (
            [curve(value, order).area for order in orders] for curve in (deletion, insertion)
        )
        gaps.append((other - fall, rise - rest))
    assert (np.mean(gaps, axis=0) > 0.05).all(), gaps


def test_attention_that_is_called_twice_is_a_sentence():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, stream, rng=None):
            encoder = ImageEncoder(patch_size=4, name="one", **explained.TOWER)
            return encoder(stream).replace(x=encoder(stream).x)

    streams = {"image": explained.streams()["image"]}
    model = MultimodalModel({"image": Twice()}, Late(8), {"label": Head(3)})
    params = explained.params_of(model, streams)
    with pytest.raises(UserError, match=r"encoders_image/one/.* is called 2 times in one pass"):
        relevancy(model, params, streams, evidence_of(Probability()))
