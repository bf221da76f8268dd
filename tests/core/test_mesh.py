"""The mesh: its sizes, and constraints that are truly in the program."""

import pytest

from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape
from tests.devices import run_on_devices


@pytest.mark.parametrize(
    ("shape", "devices", "expected"),
    [
        (MeshShape(), 8, (8, 1, 1)),
        (MeshShape(data=2, fsdp=4), 8, (2, 4, 1)),
        (MeshShape(data=-1, fsdp=2, tensor=2), 8, (2, 2, 2)),
    ],
)
def test_sizes(shape, devices, expected):
    assert shape.resolve(devices) == expected


@pytest.mark.parametrize("shape", [MeshShape(data=3), MeshShape(fsdp=3), MeshShape(-1, -1), MeshShape(fsdp=0)])
def test_sizes_that_do_not_fit_are_a_sentence(shape):
    with pytest.raises(UserError, match="mesh: "):
        shape.resolve(8)


def test_constraints_are_in_the_program_under_set_mesh_only():
    run_on_devices("""
        import jax, jax.numpy as jnp
        from mmjax.core.mesh import MeshShape, constrain_batch, make_mesh
        x = jnp.zeros((8, 4))
        assert "sharding_constraint" not in str(jax.make_jaxpr(constrain_batch)(x))
        with jax.set_mesh(make_mesh(MeshShape(data=2, fsdp=4))):
            jaxpr = str(jax.make_jaxpr(constrain_batch)(x))
            assert "sharding_constraint" in jaxpr and "'data', 'fsdp'" in jaxpr, jaxpr
            y = jax.jit(constrain_batch)(x)
            assert len({str(s.index) for s in y.addressable_shards}) == 8
    """)
