"""Counting of matrix products in traced functions."""

import pathlib

import jax
import jax.numpy as jnp
import pytest

from mmjax.core.config import load_config
from mmjax.planning.compile import configured, model_flops, trace
from mmjax.planning.flops import flops_of, needed
from mmjax.planning.topology import get_topology

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def count(fn, *shapes):
    return flops_of(jax.make_jaxpr(fn)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).jaxpr)


def test_products_loops_and_branches():
    assert count(lambda a, b: a @ b, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert count(lambda a, b: jnp.einsum("bnd,bmd->bnm", a, b), (2, 3, 4), (2, 5, 4)) == 2 * 2 * 3 * 5 * 4
    loop = lambda a: jax.lax.scan(lambda c, _: (c @ c, None), a, None, length=7)[0]  # noqa: E731
    assert count(loop, (3, 3)) == 7 * 2 * 27
    assert count(lambda a: jax.lax.cond(a[0, 0] > 0, lambda a: a @ a, lambda a: a @ a @ a, a), (3, 3)) == 2 * 2 * 27


def test_what_no_output_needs_is_not_counted():
    def fn(a):
        dead, alive = (jax.lax.scan(lambda c, _: (c @ c, None), a, None, length=n)[0] for n in (7, 2))
        del dead
        return alive

    jaxpr = jax.make_jaxpr(jax.jit(fn))(jnp.zeros((3, 3))).jaxpr
    assert flops_of(jaxpr) == 9 * 2 * 27 and flops_of(needed(jaxpr)) == 2 * 2 * 27


def test_convolutions():
    def convolution(groups):
        return lambda x, k: jax.lax.conv_general_dilated(
            x, k, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    assert count(convolution(1), (2, 8, 8, 6), (2, 2, 6, 10)) == 2 * (2 * 4 * 4 * 10) * (2 * 2 * 6)
    assert count(convolution(3), (2, 8, 8, 6), (2, 2, 2, 9)) == 2 * (2 * 4 * 4 * 9) * (2 * 2 * 2)


def test_rematerialisation_counts_as_run_and_not_as_asked_for():
    config = load_config(f"{CONFIGS / 'siglip.py'}:B/16")
    topology = get_topology("cpu:1")
    sizes = ["data.batch_size=8", "model.encoders.image.remat=full", "model.encoders.text.remat=full"]
    config = configured(config, topology, sizes)
    asked, run = model_flops(config, topology.devices[0]), trace(config, topology.devices).flops
    # Forward: 12 layers of 12 D^2 + 2 N D multiply-adds a token, patches, pooling and projection; backward twice that.
    layers = sum(12 * tokens * (12 * 768**2 + 2 * tokens * 768) for tokens in (196, 64))
    patches = 196 * 768 * 768
    assert asked / 8 == pytest.approx(3 * 2 * (layers + patches), rel=0.03)
    # Again: the forward pass but for the last product of each layer, 4 D^2 of the 12, whose result nobody needs.
    assert run / asked == pytest.approx(1 + (8 / 12) / 3, rel=0.02)
