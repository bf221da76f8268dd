"""Retrieval: equal to brute force, fair to ties, blind to order and padding, and never N x M in memory."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.core.errors import UserError
from mmjax.evaluation.blocks import best_items, count_rivals
from mmjax.evaluation.retrieval import rank_counts, retrieval, retrieval_metrics, top_k
from tests.devices import run_on_devices


def _unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _pairs(seed, pictures=23, captions=3, width=8):
    rng = np.random.default_rng(seed)
    images = _unit(rng.normal(size=(pictures, width)))
    group = np.repeat(np.arange(pictures), captions).astype(np.int32)
    texts = _unit(images[group] + 0.9 * rng.normal(size=(len(group), width)))
    return images, texts, np.arange(pictures, dtype=np.int32), group


def _brute(queries, gallery, query_group, gallery_group):
    """Higher and tied by a loop in float64 with a tolerance of 1e-6 for ties."""
    higher, tied = [], []
    for q, group in zip(queries.astype(np.float64), query_group, strict=True):
        score = gallery.astype(np.float64) @ q
        right = gallery_group == group
        gap = score[~right] - score[right].max()
        higher.append(np.sum(gap > 1e-6))
        tied.append(np.sum(np.abs(gap) <= 1e-6))
    return np.array(higher), np.array(tied)


@pytest.mark.parametrize("chunk", [1, 5, 8, 1024])
@pytest.mark.parametrize("way", ["image_to_text", "text_to_image"])
def test_counts_equal_brute_force_with_many_captions(chunk, way):
    images, texts, image_group, text_group = _pairs(0)
    args = (images, texts, image_group, text_group)
    args = args if way == "image_to_text" else (texts, images, text_group, image_group)
    counts = rank_counts(*args, chunk=chunk)
    higher, tied = _brute(*args)
    np.testing.assert_array_equal(counts.higher, higher)
    np.testing.assert_array_equal(counts.tied, tied)
    assert 0 < np.mean(counts.higher == 0) < 1  # the case is neither trivial nor hopeless


def test_what_a_query_leaves_out_is_no_rival_and_the_rest_ranks_as_without_it():
    images, texts, image_group, text_group = _pairs(4)
    left_out = (image_group + 1 + np.arange(23) % 3) % 24  # 23 is of nothing
    found = rank_counts(images, texts, image_group, text_group, left_out=left_out, query_mask=image_group != 3, chunk=5)
    for row, number in enumerate(np.delete(image_group, 3)):
        rest = text_group != left_out[number]
        higher, tied = _brute(images[number : number + 1], texts[rest], [number], text_group[rest])
        assert (found.higher[row], found.tied[row]) == (higher[0], tied[0])
    whole = rank_counts(images, texts, image_group, text_group, chunk=5)
    assert (found.higher < np.delete(whole.higher, 3)).any()


def test_ties_between_copies_are_counted():
    images, texts, image_group, text_group = _pairs(1, captions=1)
    images[5], images[9] = images[2], images[2]
    counts = rank_counts(texts, images, text_group, image_group, chunk=4)
    higher, tied = _brute(texts, images, text_group, image_group)
    np.testing.assert_array_equal(counts.higher, higher)
    np.testing.assert_array_equal(counts.tied, tied)
    assert list(counts.tied[[2, 5, 9]]) == [2, 2, 2]


def test_tie_is_resolved_in_expectation():
    item = np.array([[1.0, 0.0]], np.float32)
    gallery = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    counts = rank_counts(item, gallery, [0], np.arange(3))
    assert counts.hit_at(1)[0] == 0.5 and counts.hit_at(2)[0] == 1.0 and counts.rank[0] == 1.5


@pytest.mark.parametrize("width", [3, 64, 513])
def test_constant_embeddings_score_exactly_chance(width):
    same = np.tile(_unit(np.random.default_rng(0).normal(size=(1, width))), (40, 1))
    metrics = retrieval_metrics(same, same, np.arange(40), np.arange(40), chunk=16)
    assert metrics == {"recall_at_1": 1 / 40, "recall_at_5": 5 / 40, "recall_at_10": 10 / 40, "median_rank": 20.5}


def test_nan_is_never_a_hit():
    images, texts, image_group, text_group = _pairs(2, captions=1)
    bad = np.full_like(images, np.nan)
    assert retrieval_metrics(bad, bad, image_group, text_group)["recall_at_10"] == 0.0
    one = images.copy()
    one[3] = np.nan
    with_nan = rank_counts(texts, one, text_group, image_group)
    clean = rank_counts(texts, images, text_group, image_group)
    assert with_nan.higher[3] == len(images) - 1
    others = np.arange(len(texts)) != 3
    assert np.all(with_nan.higher[others] >= clean.higher[others])
    assert np.all(with_nan.higher[others] <= clean.higher[others] + 1)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_order_of_rows_changes_nothing(seed):
    images, texts, image_group, text_group = _pairs(seed, pictures=11, captions=2)
    images[4] = images[7]
    rng = np.random.default_rng(seed)
    p, q = rng.permutation(len(images)), rng.permutation(len(texts))
    plain = retrieval(images, texts, image_group, text_group, chunk=4)
    mixed = retrieval(images[p], texts[q], image_group[p], text_group[q], chunk=4)
    assert plain == pytest.approx(mixed, abs=1e-12)


def test_scaling_the_embeddings_changes_nothing():
    images, texts, image_group, text_group = _pairs(3)
    images[4] = images[7]
    plain = retrieval(images, texts, image_group, text_group)
    assert retrieval(images * 1e3, texts * 1e-3, image_group, text_group) == pytest.approx(plain, abs=1e-12)


def test_masked_rows_are_left_out_whatever_they_hold():
    images, texts, image_group, text_group = _pairs(4)
    garbage = np.full((3, images.shape[1]), np.nan, np.float32)
    padded = retrieval(
        np.concatenate([garbage, images]),
        np.concatenate([texts, garbage]),
        np.concatenate([image_group[:3], image_group]),
        np.concatenate([text_group, text_group[:3]]),
        a_mask=np.arange(len(images) + 3) >= 3,
        b_mask=np.arange(len(texts) + 3) < len(texts),
        chunk=7,
    )
    assert padded == retrieval(images, texts, image_group, text_group, chunk=7)


def test_keys_and_mean_of_both_ways():
    images, texts, image_group, text_group = _pairs(5)
    metrics = retrieval(images, texts, image_group, text_group, names=("video", "sound"), ks=(1, 3))
    assert set(metrics) == {
        *(f"{way}/{m}" for way in ("video_to_sound", "sound_to_video") for m in ("recall_at_1", "recall_at_3")),
        *("video_to_sound/median_rank", "sound_to_video/median_rank", "mean_recall_at_1", "mean_recall_at_3"),
    }
    both = metrics["video_to_sound/recall_at_3"] + metrics["sound_to_video/recall_at_3"]
    assert metrics["mean_recall_at_3"] == pytest.approx(both / 2, abs=1e-12)


def test_user_errors_say_what_is_wrong():
    images, texts, image_group, text_group = _pairs(6)
    with pytest.raises(UserError, match="2 of 23 queries have no right item"):
        rank_counts(images, texts, image_group, np.where(text_group < 2, 99, text_group))
    with pytest.raises(UserError, match=r"\(23, 8\) and gallery \(69, 4\)"):
        rank_counts(images, texts[:, :4], image_group, text_group)
    with pytest.raises(UserError, match=r"query_group has shape \(22,\), expected \(23,\)"):
        rank_counts(images, texts, image_group[1:], text_group)
    with pytest.raises(UserError, match=r"left_out has shape \(22,\), expected \(23,\)"):
        rank_counts(images, texts, image_group, text_group, left_out=image_group[1:])
    with pytest.raises(UserError, match="0 queries and 69 items"):
        rank_counts(images, texts, image_group, text_group, query_mask=np.zeros(23, bool))


@pytest.mark.parametrize("chunk", [4, 7, 1024])
def test_top_k_equals_stable_sort(chunk):
    images, texts, _, _ = _pairs(7)
    images[11] = images[3]
    scores, rows = top_k(texts, images, 5, chunk=chunk)
    full = np.round(texts.astype(np.float64) @ images.T.astype(np.float64), 6)  # rounded, so that copies tie
    expected = np.argsort(-full, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(full, expected, axis=1), atol=2e-6)


def test_top_k_masks_and_clips():
    images, texts, _, _ = _pairs(8)
    mask = np.arange(len(images)) % 8 == 1  # 3 left
    scores, rows = top_k(texts, images, 5, gallery_mask=mask, chunk=4)
    assert rows.shape == scores.shape == (len(texts), 3)
    assert all(sorted(row) == [1, 9, 17] for row in rows)
    with pytest.raises(UserError, match="k is 0"):
        top_k(texts, images, 0)


def _largest_value(jaxpr):
    """Elements of the largest value any equation yields, into inner jaxprs."""
    sizes = [int(np.prod(v.aval.shape)) for eqn in jaxpr.eqns for v in eqn.outvars]
    inner = [_largest_value(sub) for eqn in jaxpr.eqns for sub in jax.core.jaxprs_in_params(eqn.params)]
    return max([0, *sizes, *inner])


def test_a_million_by_a_million_needs_the_tables_and_one_block():
    n, width, chunk = 1_000_000, 16, 1024
    table, span = jax.ShapeDtypeStruct((n, width), np.float32), jax.ShapeDtypeStruct((n, 2), np.int32)
    padded = (n + chunk) * width  # the table itself, padded: the largest thing there is
    count = jax.make_jaxpr(lambda q, s, e, g: count_rivals(q, s, e, g, chunk))(table, span, span, table)
    best = jax.make_jaxpr(lambda q, g: best_items(q, g, 5, chunk))(table, table)
    for jaxpr in (count, best):
        assert chunk * chunk <= _largest_value(jaxpr.jaxpr) <= padded
        assert padded < n * chunk  # not even one chunk against everything


def test_spread_over_eight_devices_equals_one():
    out = run_on_devices(
        """
import jax, numpy as np
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.evaluation.retrieval import rank_counts
rng = np.random.default_rng(0)
q, g = rng.normal(size=(61, 8)).astype(np.float32), rng.normal(size=(37, 8)).astype(np.float32)
q[:5], g[:3] = q[0], g[0]
groups = (rng.integers(0, 37, 61), np.arange(37))
one = rank_counts(q, g, *groups, chunk=4)
mesh = make_mesh(MeshShape(data=4, fsdp=2))
eight = rank_counts(q, g, *groups, chunk=4, mesh=mesh)
spread = jax.device_put(np.tile(q, (2, 1))[:64], jax.sharding.NamedSharding(mesh, jax.P(("data", "fsdp"))))
sharded = rank_counts(spread, g, np.tile(groups[0], 2)[:64], groups[1], query_mask=np.arange(64) < 61, mesh=mesh)
for other in (eight, sharded):
    np.testing.assert_array_equal(one.higher, other.higher)
    np.testing.assert_array_equal(one.tied, other.tied)
from mmjax.evaluation.retrieval import top_k
for mine, other in zip(top_k(q, g, 5, chunk=4), top_k(q, g, 5, chunk=4, mesh=mesh)):
    np.testing.assert_array_equal(mine, other)
print("equal", len(jax.devices()), int(one.tied.sum()) > 0)
""",
        8,
    )
    assert "equal 8 True" in out
