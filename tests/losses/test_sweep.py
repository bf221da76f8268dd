"""How rows are cut into chunks, and that a sweep meets every pair once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.losses.sweep import DEFAULT_CHUNK, Plan, make_plan, sweep, tree_add


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
    assert make_plan(size, chunk_size, ("data", "fsdp")) == Plan((), 1, chunk)


def test_a_chunk_of_no_rows_is_an_error():
    with pytest.raises(UserError, match="chunk_size must be at least 1, but is 0"):
        make_plan(8, 0, ("data",))


def test_rows_that_the_mesh_does_not_divide_are_an_error():
    mesh = jax.sharding.AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    with jax.sharding.use_abstract_mesh(mesh):
        assert make_plan(64, None, ("data", "fsdp")) == Plan(("data", "fsdp"), 8, 8)
        assert make_plan(64, None, ("data", "elsewhere")) == Plan(("data",), 2, 32)
        with pytest.raises(UserError, match="12 rows cannot be split over the 8 devices of the mesh axes data, fsdp"):
            make_plan(12, None, ("data", "fsdp"))


@pytest.mark.parametrize("chunk", [1, 3, 4, 10])
def test_every_pair_is_met_once(chunk):
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 100, (2, 10)).astype(np.float32)
    seen = jnp.ones(10, bool)

    def tile(home, away):
        pairs = (home[0][:, None] * 100 + away[0][None, :]) * (home[1][:, None] & away[1][None, :])
        return jnp.sum(pairs, 1), jnp.sum(pairs, 0)

    found = sweep(Plan((), 1, chunk), tile, tree_add, (jnp.array(x), seen), (jnp.array(y), seen), (0.0, 0.0))
    pairs = x[:, None] * 100 + y[None, :]
    np.testing.assert_array_equal(found[0], pairs.sum(1))  # small integers: exact in float32
    np.testing.assert_array_equal(found[1], pairs.sum(0))
