"""The dense losses against float64, published values and the rules of masks and groups."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.core.errors import UserError
from mmjax.losses import contrastive
from tests.losses import reference
from tests.losses.forms import BIAS, SCALE, evaluate, scalars

KINDS = ("softmax", "sigmoid")


def expected(kind: str, data: dict) -> dict:
    return getattr(reference, kind)(data, **scalars(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_reference_gradients_are_those_of_its_values(kind):
    data = reference.example(7, 3, groups=4, masked=0.2)
    data = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in data.items()}
    gradients = expected(kind, data)

    def value(**change):
        data_, numbers = {**data, **change}, {k: change.get(k, v) for k, v in scalars(kind).items()}
        return (data["weight"] * getattr(reference, kind)(data_, **numbers)["loss"]).sum()

    def slope(name, step):
        base = data.get(name, scalars(kind).get(name))
        return (value(**{name: base + step}) - value(**{name: base - step})) / 2e-5

    for name in ("a", "b"):
        for index in np.ndindex(data[name].shape):
            step = np.zeros_like(data[name])
            step[index] = 1e-5
            assert slope(name, step) == pytest.approx(gradients[name][index], rel=1e-6, abs=1e-7)
    for name in scalars(kind):
        assert slope(name, 1e-5) == pytest.approx(gradients[name], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("groups", "masked"), [(None, 0.0), (None, 0.3), (9, 0.0), (9, 0.3)])
def test_equals_float64(kind, groups, masked):
    data = reference.example(40, groups=groups, masked=masked)
    reference.assert_close(evaluate(kind, data), expected(kind, data), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_group_and_mask_may_be_left_out(kind):
    data = reference.example(16)
    short = {name: data[name] for name in ("a", "b", "weight")}
    reference.assert_close(evaluate(kind, short), expected(kind, data), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_embeddings_have_float32_logits(kind):
    data = reference.example(40, groups=9)
    halves = {name: jnp.asarray(data[name], jnp.bfloat16) for name in ("a", "b")}
    rounded = {name: np.asarray(x, np.float32) for name, x in halves.items()}
    result, want = evaluate(kind, {**data, **halves}), expected(kind, {**data, **rounded})
    assert result["loss"].dtype == jnp.float32 and result["a"].dtype == jnp.bfloat16
    reference.assert_close(result, want, rel=1e-5, only=("loss", *scalars(kind)))
    reference.assert_close(result, want, rel=2**-8, only=("a", "b"))  # their own dtype rounds them


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_softmax_of_equal_logits_is_log_n(size):
    loss = contrastive.softmax_contrastive(np.ones((size, 4)), np.ones((size, 4)), logit_scale=10.0)
    np.testing.assert_allclose(loss, np.full(size, np.log(size)), rtol=1e-6, atol=1e-6)


def test_sigmoid_at_initialisation_is_the_published_value():
    a, b = np.eye(2, dtype=np.float32)[:, None].repeat(1024, 1)
    loss = contrastive.sigmoid_contrastive(a, b, logit_scale=10.0, logit_bias=-10.0)
    assert float(loss.mean()) == pytest.approx(10.0465, abs=5e-5)


def test_published_initial_values():
    assert np.exp(contrastive.SOFTMAX_LOG_SCALE_INIT) == pytest.approx(1 / 0.07)
    assert np.exp(contrastive.SOFTMAX_LOG_SCALE_MAX) == pytest.approx(100)
    assert np.exp(contrastive.SIGMOID_LOG_SCALE_INIT) == pytest.approx(10)
    assert contrastive.SIGMOID_BIAS_INIT == -10


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None, database=None)
@given(seed=st.integers(0, 2**31 - 1), groups=st.integers(1, 12), masked=st.sampled_from([0.0, 0.5]))
def test_a_permutation_of_the_batch_permutes_the_losses(kind, seed, groups, masked):
    data = reference.example(12, 4, seed, groups, masked)
    order = np.random.default_rng(seed).permutation(12)
    before = evaluate(kind, data)
    after = evaluate(kind, {name: x[order] for name, x in data.items()})
    want = {name: np.asarray(x)[order] if np.ndim(x) else x for name, x in before.items()}
    reference.assert_close(after, want, rel=5e-6, floor=SCALE)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_a_group_means_nothing(kind):
    data = reference.example(12, groups=5)
    other = {**data, "group": np.int32(2**31 - 1) - data["group"]}
    first, second = evaluate(kind, data), evaluate(kind, other)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 3e38])
def test_nothing_leaks_from_masked_rows(kind, garbage):
    data = reference.example(12, groups=5, masked=0.4)
    dirty = {**data, **{name: data[name].copy() for name in ("a", "b")}}
    dirty["a"][~data["mask"]] = garbage
    dirty["b"][~data["mask"]] = -garbage
    clean, result = evaluate(kind, data), evaluate(kind, dirty)
    assert not data["mask"].all()
    for name in clean:
        np.testing.assert_array_equal(clean[name], result[name])
    for name in ("loss", "a", "b"):
        assert not np.asarray(result[name])[~data["mask"]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_a_row_gives_zeros(kind):
    data = {**reference.example(6), "mask": np.zeros(6, bool)}
    for name, value in evaluate(kind, data).items():
        assert not np.asarray(value).any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_diverged_row_is_not_hidden(kind):
    data = reference.example(6)
    data["a"][2, 0] = np.nan
    assert np.isnan(np.asarray(evaluate(kind, data)["loss"])[2])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"b": np.ones((5, 4), np.float32)}, r"a and b must both be \[N, D\], but are \[6, 4\] and \[5, 4\]"),
        ({"a": np.ones((6, 4), np.int32)}, "a must hold floating-point embeddings, but is of int32"),
        ({"logit_scale": np.ones(6)}, r"logit_scale must be a scalar, but has the shape \[6\]"),
        ({"logit_bias": np.ones(1)}, r"logit_bias must be a scalar, but has the shape \[1\]"),
        ({"group": np.zeros(5, np.int32)}, r"group must be \[N\] = \[6\] of integer, but is \[5\] of int32"),
        ({"group": np.zeros(6, np.float32)}, "group must be .* of integer, but is .* of float32"),
        ({"mask": np.zeros(6, np.int32)}, "mask must be .* of bool, but is .* of int32"),
    ],
)
def test_wrong_inputs_are_named(change, sentence):
    inputs = {"a": np.ones((6, 4), np.float32), "b": np.ones((6, 4), np.float32)}
    inputs |= {"logit_scale": SCALE, "logit_bias": BIAS, **change}
    with pytest.raises(UserError, match=sentence):
        contrastive.sigmoid_contrastive(inputs.pop("a"), inputs.pop("b"), **inputs)
