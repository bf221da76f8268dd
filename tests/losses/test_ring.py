"""The ring losses against float64 on one device and on several, and that they never hold N x N logits."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.losses.ring import ring_sigmoid_contrastive, ring_softmax_contrastive
from tests.devices import run_on_devices
from tests.losses import reference
from tests.losses.forms import SCALE, evaluate, scalars
from tests.losses.on_devices import FORMS, KINDS
from tests.quick import FULL


def expected(kind: str, data: dict) -> dict:
    return getattr(reference, kind)(data, **scalars(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_size", [None, 1, 7, 20])
def test_equals_float64_for_any_chunk(kind, chunk_size):
    data = reference.example(40, groups=9, masked=0.3)
    reference.assert_close(evaluate(kind, data, chunk_size=chunk_size), expected(kind, data), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_group_and_mask_may_be_left_out(kind):
    data = reference.example(16)
    short = {name: data[name] for name in ("a", "b", "weight")}
    reference.assert_close(evaluate(kind, short, chunk_size=5), expected(kind, data), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    groups=st.integers(1, 12),
    masked=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    chunk_size=st.sampled_from([1, 5, 12]),
)
def test_equals_float64_for_any_groups_and_mask(kind, seed, groups, masked, chunk_size):
    data = reference.example(12, 4, seed, groups, masked)
    reference.assert_close(evaluate(kind, data, chunk_size=chunk_size), expected(kind, data), rel=5e-6, floor=SCALE)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_embeddings_have_float32_logits_and_sums(kind):
    data = reference.example(40, groups=9)
    halves = {name: jnp.asarray(data[name], jnp.bfloat16) for name in ("a", "b")}
    rounded = {name: np.asarray(x, np.float32) for name, x in halves.items()}
    result, want = evaluate(kind, {**data, **halves}, chunk_size=7), expected(kind, {**data, **rounded})
    assert result["loss"].dtype == jnp.float32 and result["a"].dtype == jnp.bfloat16
    reference.assert_close(result, want, rel=1e-5, only=("loss", *scalars(kind)))
    reference.assert_close(result, want, rel=2**-8, only=("a", "b"))  # their own dtype rounds them


def test_large_logits_do_not_overflow():
    data = reference.example(24)
    loss = ring_softmax_contrastive(data["a"], data["b"], logit_scale=1600.0, chunk_size=5)
    logits = 1600.0 * data["a"].astype(np.float64) @ data["b"].T
    best = (logits.max(0) + logits.max(1)) / 2 - np.diag(logits)
    assert best.max() > 1000  # far beyond what exp takes in float32
    np.testing.assert_allclose(loss, best, atol=np.log(24))  # a log-sum-exp is at most log N above the largest logit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_nothing_leaks_from_masked_rows(kind, garbage):
    data = reference.example(12, groups=5, masked=0.4)
    dirty = {**data, **{name: np.where(data["mask"][:, None], data[name], np.float32(garbage)) for name in ("a", "b")}}
    clean, result = evaluate(kind, data, chunk_size=5), evaluate(kind, dirty, chunk_size=5)
    assert not data["mask"].all()
    for name in clean:
        np.testing.assert_array_equal(clean[name], result[name])
    for name in ("loss", "a", "b"):
        assert not np.asarray(result[name])[~data["mask"]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_diverged_row_is_not_hidden(kind):
    data = reference.example(6)
    data["a"][2, 0] = np.nan
    assert np.isnan(np.asarray(evaluate(kind, data, chunk_size=4)["loss"])[2])


@pytest.mark.parametrize(("size", "published"), [(1024, 10.0465), (32768, 11.4876)])
def test_sigmoid_at_initialisation_is_the_published_value(size, published):
    x = jnp.zeros((size, 1))
    compiled = (
        jax.jit(lambda a, b: ring_sigmoid_contrastive(a, b, logit_scale=10.0, logit_bias=-10.0).mean())
        .lower(x, x)
        .compile(compiler_options=FULL)
    )
    assert compiled.memory_analysis().temp_size_in_bytes < 32 * 2**20  # N x N logits would be 4 GiB at 32768
    assert float(compiled(x, x)) == pytest.approx(published, abs=5e-5)


def test_softmax_of_equal_logits_is_log_n():
    loss = ring_softmax_contrastive(jnp.ones((1000, 2)), jnp.ones((1000, 2)), logit_scale=10.0, chunk_size=300)
    np.testing.assert_allclose(loss, np.full(1000, np.log(1000)), rtol=1e-6)


@functools.cache
def found_on(num_devices: int, call: str) -> dict:
    """Returns what a function of tests.losses.on_devices prints on so many simulated devices."""
    source = f"from tests.losses import on_devices\non_devices.{call}()"
    return json.loads(run_on_devices(source, num_devices).splitlines()[-1])


def test_equals_float64_on_1_2_4_and_8_devices():
    differences = found_on(8, "on_eight")["differences"]
    assert {name: worst for name, worst in differences.items() if worst > 1e-5} == {}
    assert len(differences) == 22


@pytest.mark.parametrize("kind", KINDS)
def test_no_device_holds_its_rows_against_all(kind):
    size, dim, chunk = FORMS["ring"].values()
    local = size // 8
    ring, dense = (found_on(8, "on_eight")[f"{kind} {form}"] for form in ("ring", "dense"))
    # The largest value of forward and backward pass, traced and compiled, is a device's rows or a tile.
    assert max(ring["largest_per_device"], ring["largest_compiled"]) <= max(local * dim, chunk * chunk)
    assert dense["largest_compiled"] >= local * size  # so that the measure is known to see it


@pytest.mark.parametrize("kind", KINDS)
def test_only_blocks_travel(kind):
    ring = found_on(8, "on_eight")[f"{kind} ring"]
    assert ring["shard_maps"] == 2  # one forward, one backward
    # b both ways in its own dtype; its gradient in float32, at each step and once more to be home
    assert ring["embeddings_sent"] == ["bfloat16", "bfloat16", "float32", "float32"]
    assert ring["collectives"] == ["all-reduce", "collective-permute"]
    assert ring["summed"] == [""]  # shapes of what is summed over devices: scalars alone


@pytest.mark.parametrize("kind", KINDS)
def test_small_blocks_are_joined_before_they_travel(kind):
    size, dim, chunk = FORMS["joined"].values()
    ring = found_on(8, "on_eight")[f"{kind} joined"]
    assert ring["collectives"] == ["all-gather", "all-reduce", "all-to-all", "collective-permute"]
    assert ring["largest_per_device"] <= chunk * dim < size * dim


@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_a_device_does_not_grow_with_their_number(kind):
    found = found_on(256, "on_many")[kind]
    assert list(found) == ["8", "64", "256"] and min(found.values()) > 0
    assert max(found.values()) <= 1.05 * min(found.values())
