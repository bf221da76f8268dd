"""What is published of the chips that a plan may be for: to a plan, all of it is assumption."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
      name: as in a topology's name.
      memory: bytes of HBM that a program may use.
      clock: Hz of the matrix units: peak_flops ÷ the multiply-adds that they do in a cycle; None where the compiler
        gives no cycles.
      peak_flops: dense bfloat16 operations a second.
      ring: bytes a second that a device sends round one ring: over two links of the torus, or all its NVLinks.
      network: bytes a second of one chip's share of its host's network, in one direction, between slices.
      mode: of the chip, as libtpu names it, where it has several (v4: two cores as one device).
      bandwidth: bytes a second of the HBM, where time is estimated by it.
      memory_from: 'assumption', or 'measured' where the device itself says its memory.
    """

    name: str
    memory: int
    clock: float | None
    peak_flops: float
    ring: float
    network: float
    mode: str | None = None
    bandwidth: float | None = None
    memory_from: str = "assumption"


CHIPS: Mapping[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v4", int(30.75 * GIB), 1.05e9, 275e12, 100e9, 6.25e9, "megacore"),
        Chip("v5e", int(15.75 * GIB), 1.5e9, 197e12, 100e9, 3.125e9),
        Chip("v5p", int(95.73 * GIB), 1.75e9, 459e12, 200e9, 6.25e9),
        Chip("v6e", int(31.24 * GIB), 1.75e9, 918e12, 200e9, 12.5e9),
    )
}
"""From https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and the page of each kind, read in November 2026:
a chip's bidirectional bandwidth ÷ its ports ÷ 2 is that of a link, and a ring has two. Memory is what libtpu 0.0.52
names as available when a program does not fit: the runtime keeps some of the HBM."""

_JAX_SHARE = 0.75

GPUS: Mapping[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("A100", int(_JAX_SHARE * 80e9), None, 312e12, 300e9, 25e9, bandwidth=2.039e12),
        Chip("H100", int(_JAX_SHARE * 80e9), None, 989e12, 450e9, 50e9, bandwidth=3.35e12),
        Chip("H200", int(_JAX_SHARE * 141e9), None, 989e12, 450e9, 50e9, bandwidth=4.8e12),
    )
}
"""The SXM modules, by NVIDIA's data sheets; the network is one adapter of 200 Gb/s (A100) or 400 Gb/s a GPU, as in its
DGX systems. Memory: the share that JAX takes by default, where the device does not say it."""


def gpu_chip(device: Any) -> Chip | None:
    """Returns what is known of a GPU, with the memory that it says it gives; None for another than the SXM modules."""
    found = re.search(r"\b(A100|H100|H200)\b(?!.*(?:PCIe|NVL|MIG))", device.device_kind)
    if not found:
        return None
    chip, limit = GPUS[found.group(1)], (device.memory_stats() or {}).get("bytes_limit")
    if not limit:
        return chip
    return dataclasses.replace(chip, memory=limit, memory_from="measured")
