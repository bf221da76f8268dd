"""Shares of the modalities: what is planted in one, what is missing, a score that needs both."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.attribution import AttributionEvaluator
from mmjax.evaluation.scores import Cosine, Probability, Value
from tests.evaluation import planted
from tests.toy import toy_batch


def batch_of(streams, size):
    return Batch(streams, np.arange(size, dtype=np.int32), np.ones(size, bool))


def test_a_planted_modality_has_over_90_percent():
    params = planted.learned()
    streams, _, _ = planted.planted(64, 10_001)
    found = AttributionEvaluator()(lambda batch: planted.answers(params, batch.streams), [batch_of(streams, 64)])
    assert found["image/share"] > 0.9 and found["image/share"] + found["text/share"] == pytest.approx(1)
    whole = found["all/score"] - found["none/score"]
    assert found["image/shapley"] + found["text/shapley"] == pytest.approx(whole, abs=1e-5)
    assert found["all/score"] > 0.9


def additive(batch):
    """Logits that are sums over the modalities of their mean values, and two-dimensional embeddings."""
    total = jnp.zeros((batch.size, 3))
    for stream in batch.streams.values():
        total = total + jnp.where(jnp.asarray(stream.mask).any(axis=1)[:, None], stream.values[:, :3], 0.0)
    embeddings = {name: jnp.asarray(stream.values[:, :2]) for name, stream in batch.streams.items()}
    return {"label": total, "score": total[:, :1], **embeddings}


def test_equal_modalities_share_equally_and_a_missing_one_has_nothing():
    batch = toy_batch(12)
    batch.streams["b"].values[:] = batch.streams["a"].values
    rows = jax.tree.map(lambda leaf: leaf[2:], batch)
    for score in (Probability(), Value()):
        found = AttributionEvaluator(score)(additive, [rows])
        assert found["a/share"] == pytest.approx(0.5, abs=1e-6)
        assert found["a/shapley"] == pytest.approx(found["b/shapley"], abs=1e-6)
    lacking = jax.tree.map(lambda leaf: leaf[:1], batch)  # row 0 has no 'a'
    found = AttributionEvaluator()(additive, [lacking])
    assert found["a/shapley"] == 0 and found["a/share"] == 0 and found["b/share"] == 1


def test_padding_counts_for_nothing_and_batches_are_limited():
    batch = toy_batch(12)
    garbage = dataclasses.replace(batch, streams=jax.tree.map(np.copy, batch.streams))
    garbage.streams["b"].values[1] = 1e6  # row 1 is padding
    assert AttributionEvaluator()(additive, [batch]) == AttributionEvaluator()(additive, [garbage])
    twice = AttributionEvaluator(batches=None)(additive, [batch, toy_batch(12, seed=3)])
    assert AttributionEvaluator()(additive, [batch, toy_batch(12, seed=3)]) != twice


def pair_of(image, text):
    """Answers whose cosine and probability of a match rise with image(pixels) and text(ids, mask), both in [0, 1]."""

    def embed(batch):
        shown, read = batch.streams["image"], batch.streams["text"]
        found = 0.2 + 0.3 * image(jnp.asarray(shown.values, jnp.float32) / 255)
        found = found + 0.3 * text(jnp.asarray(read.values), jnp.asarray(read.mask))  # [B]
        cosine = jnp.stack([found, jnp.sqrt(1 - found**2)], axis=1)
        matching = jnp.stack([jnp.log(1 - found), jnp.log(found)], axis=1)
        return {"image": cosine, "text": jnp.broadcast_to(jnp.array([1.0, 0.0]), cosine.shape), "matching": matching}

    return embed


def nothing(values, *_):
    return jnp.zeros(len(values))


def bright(pixels):
    return (pixels > 0.6).mean(axis=(1, 2, 3))


def long(ids, mask):
    return (mask & (ids > 0)).mean(axis=1)


@pytest.mark.parametrize("score", [Cosine(), Probability("matching", whole=True)], ids=["cosine", "matching"])
@pytest.mark.parametrize(
    "image, text, owner", [(bright, nothing, "image"), (nothing, long, "text")], ids=["image", "text"]
)
def test_of_a_score_that_needs_both_all_goes_to_the_one_that_decides(score, image, text, owner):
    streams = {
        "image": Stream(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8), np.ones((4, 1), bool)),
        "text": Stream(np.arange(1, 25, dtype=np.int32).reshape(4, 6), np.arange(6) < np.array([[6], [4], [3], [5]])),
    }
    found = AttributionEvaluator(score, parts=4, permutations=8)(pair_of(image, text), [batch_of(streams, 4)])
    assert found[f"{owner}/share"] == pytest.approx(1, abs=1e-5)
    assert abs(found["all/score"] - found["none/score"]) > 0.02
    constant = AttributionEvaluator(score, parts=4)(pair_of(nothing, nothing), [batch_of(streams, 4)])
    assert constant["image/shapley"] == constant["text/shapley"] == 0 != constant["none/score"]


def test_a_cosine_is_shared_among_the_parts():
    """The image embeds where its left half is bright: what is shared out is the difference to a flat picture."""
    streams, _, _ = planted.planted(4, 0)

    def embed(batch):
        pixels = jnp.asarray(batch.streams["image"].values, jnp.float32)
        left, right = pixels[:, :, :8].mean(axis=(1, 2, 3)), pixels[:, :, 8:].std(axis=(1, 2, 3))
        image = jnp.stack([left, right], axis=1)
        unit = image / jnp.linalg.norm(image, axis=1, keepdims=True)
        return {"image": unit, "text": jnp.broadcast_to(jnp.array([0.0, 1.0]), unit.shape)}

    found = AttributionEvaluator(Cosine(), parts=4, permutations=8)(embed, [batch_of(streams, 4)])
    assert found["image/share"] == pytest.approx(1) and found["text/share"] == 0
    assert 0 < found["none/score"] < found["all/score"]
    whole = found["all/score"] - found["none/score"]
    assert found["image/shapley"] + found["text/shapley"] == pytest.approx(whole, abs=1e-5)


def test_a_picture_without_its_pair_has_no_score():
    streams, _, _ = planted.planted(4, 0)
    streams["text"] = streams["text"].replace(mask=np.zeros((4, 4), bool))
    found = AttributionEvaluator(Cosine(), parts=4)(pair_of(bright, long), [batch_of(streams, 4)])
    assert found["all/score"] == found["none/score"] == found["image/shapley"] == found["all/explained"] == 0


def test_shares_sum_to_one_over_the_examples_that_have_a_score():
    streams, _, _ = planted.planted(4, 0)
    streams["text"] = streams["text"].replace(mask=streams["text"].mask & np.array([[True], [True], [False], [True]]))
    found = AttributionEvaluator(Cosine(), parts=4)(pair_of(bright, long), [batch_of(streams, 4)])
    assert found["all/explained"] == 0.75 and found["image/share"] + found["text/share"] == pytest.approx(1)


def test_errors():
    with pytest.raises(UserError, match="the head: 'labels' is unknown"):
        AttributionEvaluator(Probability("labels"))(additive, [toy_batch(4)])
    with pytest.raises(UserError, match="5 modalities"):
        AttributionEvaluator()(additive, [toy_batch(4, names=tuple("abcde"))])
    with pytest.raises(UserError, match=r"AttributionEvaluator\.parts=0"):
        AttributionEvaluator(parts=0)
    with pytest.raises(UserError, match="gave no batches"):
        AttributionEvaluator()(additive, [])
