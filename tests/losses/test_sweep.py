"""How rows are cut into chunks, and that a sweep meets every pair once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.losses.sweep import DEFAULT_CHUNK, Plan, make_plan, sweep, tree_add


def on_one_device(chunk):
    return Plan(ring=(), steps=1, joined=(), parts=1, chunk=chunk, away_chunk=chunk)


@pytest.mark.parametrize(
    ("size", "chunk_size", "chunk"),
    [
        (1500, 1024, 750),
        (1024, 1024, 1024),
        (7, 3, 3),
        (7, 100, 7),
        (7, 1, 1),
        (2 * DEFAULT_CHUNK, None, DEFAULT_CHUNK),
    ],
)
def test_chunks_are_equal_and_no_larger_than_asked(size, chunk_size, chunk):
    assert make_plan(size, chunk_size, ("data", "fsdp")) == on_one_device(chunk)


def test_a_chunk_of_no_rows_is_an_error():
    with pytest.raises(UserError, match="chunk_size must be at least 1, but is 0"):
        make_plan(8, 0, ("data",))


def test_rows_that_the_mesh_does_not_divide_are_an_error():
    mesh = jax.sharding.AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    words = "12 rows cannot be split over the 8 devices of the mesh axes data, fsdp"
    with jax.sharding.use_abstract_mesh(mesh), pytest.raises(UserError, match=words):
        make_plan(12, None, ("data", "fsdp"))


def test_blocks_are_joined_over_the_innermost_axes_while_they_fit_in_a_chunk():
    mesh = jax.sharding.AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    both = ("data", "fsdp")
    with jax.sharding.use_abstract_mesh(mesh):
        assert make_plan(64, 16, both) == Plan(both, 8, (), 1, 8, 8)
        assert make_plan(64, 32, both) == Plan(("data",), 2, ("fsdp",), 4, 8, 32)
        assert make_plan(64, None, both) == Plan((), 1, both, 8, 8, 64)
        assert make_plan(64, None, ("data", "elsewhere")) == Plan((), 1, ("data",), 2, 32, 64)


@pytest.mark.parametrize("chunk", [1, 3, 4, 10])
def test_every_pair_is_met_once(chunk):
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 100, (2, 10)).astype(np.float32)
    seen = jnp.ones(10, bool)

    def tile(home, away):
        pairs = (home[0][:, None] * 100 + away[0][None, :]) * (home[1][:, None] & away[1][None, :])
        return jnp.sum(pairs, 1), jnp.sum(pairs, 0)

    found = sweep(on_one_device(chunk), tile, tree_add, (jnp.array(x), seen), (jnp.array(y), seen), (0.0, 0.0))
    pairs = x[:, None] * 100 + y[None, :]
    np.testing.assert_array_equal(found[0], pairs.sum(1))  # small integers: exact in float32
    np.testing.assert_array_equal(found[1], pairs.sum(0))
