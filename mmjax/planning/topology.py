"""The devices that a plan is for: those of a TPU slice that is not here, or simulated ones of this CPU."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from typing import Any

import jax

from mmjax.core.errors import UserError, one_of
from mmjax.core.optional import optional
from mmjax.planning.chips import CHIPS, Chip, gpu_chip

EXAMPLES = "v5e:16x16 (a v5litepod-256), v5p:4x4x4, 2*v5e:16x16 (two slices), cpu:8, gpu"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for.

    Attributes:
      name: as asked for.
      platform: 'tpu', 'cpu' or 'gpu'.
      devices: jax devices; those of a TPU slice can be compiled for, and nothing else.
      chip: what is known of one; None for a CPU and for GPUs that are not in `chips`.
    """

    name: str
    platform: str
    devices: tuple[Any, ...]
    chip: Chip | None = None

    @property
    def hosts(self) -> int:
        """Processes that feed the devices."""
        return len({device.process_index for device in self.devices})


def get_topology(name: str) -> Topology:
    """Returns the topology of a name such as 'v5e:16x16', '2*v5e:16x16', 'cpu:8' or 'gpu' (those of this machine).

    Raises:
      UserError: a name that is none, a chip that is unknown, a layout that its kind has not, or libtpu is missing.
    """
    found = re.fullmatch(r"(?:(\d+)\*)?([a-z]\w*)(?::(\d+(?:x\d+)*))?", name)
    if not found:
        raise UserError(f"--topology {name!r}: expected a name such as {EXAMPLES}.")
    slices, kind, layout = int(found.group(1) or 1), found.group(2), found.group(3)
    one_of(kind, [*CHIPS, "cpu", "gpu"], "--topology")
    if (kind in ("cpu", "gpu") and (slices > 1 or "x" in (layout or ""))) or (kind == "gpu" and layout):
        raise UserError(
            f"--topology {name!r}: expected 'cpu:8' (a number of devices) or 'gpu' (those of this machine)."
        )
    if kind == "gpu":
        gpus = tuple(_local_gpus())
        return Topology(name, "gpu", gpus, gpu_chip(gpus[0]))
    if layout is None:
        raise UserError(f"--topology {name!r}: the layout is missing; expected a name such as {EXAMPLES}.")
    if kind == "cpu":
        return Topology(name, "cpu", tuple(_simulated(int(layout))))
    return Topology(name, "tpu", tuple(_tpu(name, CHIPS[kind], layout, slices)), CHIPS[kind])


def _tpu(name: str, chip: Chip, layout: str, slices: int) -> list[Any]:
    optional("libtpu", "Plans for TPUs are compiled by libtpu", "plan")
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no metadata server: this machine is not one of a slice
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing is run, so plans may be made side by side
    options = ({"num_slices": slices} if slices > 1 else {}) | ({"chip_config_name": chip.mode} if chip.mode else {})
    try:
        return topologies.get_topology_desc(f"{chip.name}:{layout}", platform="tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--topology {name!r}: libtpu has no such slice; expected a layout that its kind is sold in, such as "
            f"{EXAMPLES} ({reason})."
        ) from None


def _simulated(count: int) -> list[Any]:
    """Returns `count` CPU devices; JAX must not have started with fewer."""
    with contextlib.suppress(RuntimeError):  # where JAX has started already
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(f"--topology cpu:{count}: JAX has started with {len(devices)} CPU devices already.")
    return devices[:count]


def _local_gpus() -> list[Any]:
    try:
        return jax.devices("gpu")
    except RuntimeError:
        raise UserError("--topology gpu plans for the GPUs of this machine, and JAX finds none.") from None
