"""Accelerators that are here and that JAX does not use."""

from __future__ import annotations

import pathlib
import shutil

import jax


def idle_accelerators() -> dict[str, str]:
    """Returns name -> the command that makes JAX use it; none where JAX computes on an accelerator already."""
    if jax.default_backend() != "cpu":
        return {}
    found = {}
    if shutil.which("nvidia-smi") or pathlib.Path("/dev/nvidia0").exists():
        found["NVIDIA GPU"] = "pip install 'mmjax[gpu]'"
    if [*pathlib.Path("/dev").glob("accel*"), *pathlib.Path("/dev/vfio").glob("[0-9]*")]:
        found["TPU"] = "pip install 'mmjax[tpu]'"
    return found
