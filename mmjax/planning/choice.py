"""What a search may change of a config, and the flags by which a person changes the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import fiddle as fdl

from mmjax.core.config import set_everywhere, sub_configs_with
from mmjax.core.mesh import AXES, MeshShape


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a search may change of a config; None leaves it as it is.

    Attributes:
      fsdp, tensor: sizes of these mesh axes; data takes the rest.
      remat: of every encoder, fusion and decoder that has a policy.
      micro_batches: of the experiment.
      batch_parts: of every encoder that takes its examples in parts.
    """

    fsdp: int | None = None
    tensor: int | None = None
    remat: str | None = None
    micro_batches: int | None = None
    batch_parts: int | None = None

    def apply(self, config: fdl.Config) -> fdl.Config:
        """Returns a copy of config with the choice made."""
        config = fdl.deepcopy_with(config)
        if axes := self._axes():
            sizes = {axis: _of_mesh(config, axis) for axis in AXES}
            config.mesh = fdl.Config(MeshShape, **{**sizes, "data": -1, **axes})
        for name in ("remat", "batch_parts"):
            if (value := getattr(self, name)) is not None:
                set_everywhere(config.model, name, value, overwrite=True)
        if self.micro_batches is not None:
            config.micro_batches = self.micro_batches
        return config

    def without_effect(self, config: fdl.Config, mesh: dict[str, int]) -> Choice:
        """Returns the choice without what the config has already; mesh: the sizes of the axes that it gives."""
        same = [name for name in ("remat", "batch_parts") if _values(config, name) <= {getattr(self, name)}]
        same += [axis for axis, size in self._axes().items() if size == mesh[axis]]
        same += ["micro_batches"] if self.micro_batches == getattr(config, "micro_batches", 1) else []
        return dataclasses.replace(self, **dict.fromkeys(same))

    def flags(self, config: fdl.Config) -> str:
        """Returns the flags of `plan` that make the choice: '--mesh fsdp=8 --set micro_batches=4'."""
        found = []
        if axes := self._axes():
            free = {"data": -1} if _of_mesh(config, "data") != -1 else {}
            found.append("--mesh " + ",".join(f"{axis}={size}" for axis, size in (free | axes).items()))
        for name in ("remat", "batch_parts"):
            if (value := getattr(self, name)) is not None:
                parts = sub_configs_with({"model": config.model}, name)
                found += [f"--set {path}.{name}={value}" for path, part in parts if getattr(part, name) != value]
        if self.micro_batches is not None:
            found.append(f"--set micro_batches={self.micro_batches}")
        return " ".join(found)

    def _axes(self) -> dict[str, int]:
        """Returns axis of the mesh -> size that is chosen."""
        return {axis: size for axis in ("fsdp", "tensor") if (size := getattr(self, axis)) is not None}

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in dataclasses.asdict(self).items() if value is not None]
        return ", ".join(parts) or "as configured"


def _of_mesh(config: fdl.Config, axis: str) -> int:
    mesh = config.__arguments__.get("mesh")
    return getattr(mesh if isinstance(mesh, (fdl.Config, MeshShape)) else MeshShape(), axis)


def _values(config: fdl.Config, name: str) -> set[Any]:
    return {getattr(part, name) for _, part in sub_configs_with(config.model, name)}
