"""The mesh: its sizes, and constraints that are truly in the program."""

import dataclasses
import importlib.util

import pytest
from jax.sharding import AxisType

from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape, make_mesh, slice_of
from mmjax.planning.topology import get_topology
from tests.devices import run_on_devices

NO_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


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


@NO_LIBTPU
@pytest.mark.parametrize("fsdp", [4, 8, 16])
@pytest.mark.parametrize("name", ["2*v5e:4x4", "4*v5e:2x4", "v4:4x4x4", "v5p:4x4x4", "v6e:16x16", "2*v6e:8x8"])
def test_every_slice_of_tpus_takes_meshes_that_keep_fsdp_inside(name, fsdp):
    devices = get_topology(name).devices
    slices = {slice_of(device) for device in devices}
    if fsdp > len(devices) // len(slices):
        with pytest.raises(UserError, match="must be divisible by 4; fsdp x tensor may be 8 at most"):
            make_mesh(MeshShape(fsdp=fsdp), devices)
        return
    mesh = make_mesh(MeshShape(fsdp=fsdp), devices)
    assert mesh.axis_types == (AxisType.Auto,) * 3 and mesh.shape["fsdp"] == fsdp
    assert sorted(device.id for device in mesh.devices.flat) == sorted(device.id for device in devices)
    groups = mesh.devices[:, :, 0]  # [data, fsdp]
    assert all(len({slice_of(device) for device in group}) == 1 for group in groups)
    order = [slice_of(group[0]) for group in groups]
    assert order == sorted(order)  # slices are outermost on the data axis
    for group in groups:  # a box of chips, not a scattering
        sides = [len({device.coords[axis] for device in group}) for axis in range(3)]
        assert sides[0] * sides[1] * sides[2] == fsdp


@NO_LIBTPU
def test_devices_that_take_no_mesh_are_a_sentence():
    devices = get_topology("v5e:2x2").devices
    with pytest.raises(UserError, match=r"mesh: data=3 x fsdp=1 x tensor=1 cannot be laid over these 3 devices"):
        make_mesh(MeshShape(), devices[:3])
    both = get_topology("2*v5e:2x2").devices
    with pytest.raises(UserError, match="expected whole slices, of equal size"):
        make_mesh(MeshShape(), both[:6])


@dataclasses.dataclass(frozen=True)
class Gpu:
    id: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "NVIDIA H100 80GB HBM3"


def test_hosts_of_gpus_may_be_spanned_by_any_axis():
    mesh = make_mesh(MeshShape(data=1, fsdp=4), [Gpu(number, number // 2) for number in (2, 3, 0, 1)])
    assert [device.id for device in mesh.devices[0, :, 0]] == [0, 1, 2, 3]


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
