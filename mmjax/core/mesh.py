"""The device mesh: axes data x fsdp x tensor, and the one helper that constrains a value to it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Sizes of the mesh axes; -1 (at most one) takes all devices that remain."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def resolve(self, num_devices: int) -> tuple[int, int, int]:
        """Returns the three sizes for num_devices.

        Raises:
          UserError: the sizes do not multiply to num_devices.
        """
        sizes = (self.data, self.fsdp, self.tensor)
        known = math.prod(size for size in sizes if size != -1)
        if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise UserError(f"mesh: {self} must have positive sizes and at most one -1.")
        if -1 in sizes and num_devices % known == 0:
            sizes = tuple(num_devices // known if size == -1 else size for size in sizes)
        if math.prod(sizes) != num_devices:
            raise UserError(
                f"mesh: data={self.data} x fsdp={self.fsdp} x tensor={self.tensor} does not fill "
                f"the {num_devices} devices; the product must be {num_devices} (-1 on one axis takes the rest)."
            )
        return sizes


def make_mesh(shape: MeshShape = MeshShape(), devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns an Auto mesh with axes data, fsdp, tensor over devices (default: all).

    Neighbours on fsdp and tensor are neighbours in the torus; slices of TPUs are spanned by the data axis alone.

    Raises:
      UserError: the sizes do not fill the devices, the slices do not divide the data axis, or JAX finds no assignment.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = shape.resolve(len(devices))
    try:
        placed = _placed(sizes, devices)
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:  # as JAX fails where it finds none
        reason = re.split(r"\. |\[|\n", str(error))[0]
        raise UserError(
            f"mesh: {_written(sizes)} cannot be laid over these {len(devices)} devices of kind "
            f"{devices[0].device_kind!r}; expected whole slices, of equal size ({type(error).__name__}: {reason})."
        ) from error
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * 3)


def slice_of(device: Any) -> int:
    """Returns the slice that a device is in: those of one are joined by their own links, slices by the network."""
    return getattr(device, "slice_index", 0)


def _placed(sizes: tuple[int, int, int], devices: list[Any]) -> np.ndarray:
    """Returns the devices [data, fsdp, tensor]; a physical axis may be split among axes of the mesh.

    Raises:
      UserError: the slices do not divide the data axis.
    """
    slices, on_tpu = len({slice_of(device) for device in devices}), devices[0].platform == "tpu"
    if slices == 1 or not on_tpu:  # GPUs in the order of their numbers, host by host
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=on_tpu)
    if sizes[0] % slices:
        raise UserError(
            f"mesh: {_written(sizes)} on {slices} slices: fsdp and tensor stay within a slice, so data={sizes[0]} must "
            f"be divisible by {slices}; fsdp x tensor may be {len(devices) // slices} at most."
        )
    inner = (sizes[0] // slices, *sizes[1:])
    return mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1), devices, allow_split_physical_axes=True)


def _written(sizes: Sequence[int]) -> str:
    return " x ".join(f"{name}={size}" for name, size in zip(AXES, sizes, strict=True))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: axis 0 over data and fsdp, replicated over tensor."""
    return NamedSharding(mesh, P(BATCH_AXES))


def constrain(x: jax.Array, *spec: str | tuple[str, ...] | None) -> jax.Array:
    """Constrains x to spec over the mesh of `jax.set_mesh`; without a mesh, or on a mesh of one device, returns x.

    Axis names that the mesh lacks are dropped, so that a layer may be used on any mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x

    def known(entry: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if entry is None or isinstance(entry, str):
            return entry if entry in mesh.axis_names else None
        return tuple(name for name in entry if name in mesh.axis_names) or None

    return jax.lax.with_sharding_constraint(x, P(*map(known, spec)))


def constrain_batch(x: jax.Array) -> jax.Array:
    """Constrains axis 0 of x to the batch axes of the mesh."""
    return constrain(x, BATCH_AXES, *(None,) * (x.ndim - 1))
