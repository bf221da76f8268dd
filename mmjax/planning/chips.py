"""What is published of the chips that a plan may be for: to a plan, all of it is assumption."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
      name: as in a topology's name.
      memory: bytes of HBM that a program may use.
      clock: Hz of the matrix units: peak_flops ÷ the multiply-adds that they do in a cycle.
      peak_flops: dense bfloat16 operations a second.
      link: bytes a second of one inter-chip link in one direction.
      network: bytes a second of one chip's share of its host's network, in one direction, between slices.
      mode: of the chip, as libtpu names it, where it has several (v4: two cores as one device).
    """

    name: str
    memory: int
    clock: float
    peak_flops: float
    link: float
    network: float
    mode: str | None = None

    @property
    def ring(self) -> float:
        """Bytes a second that a device sends round one ring of the torus, in both directions at once."""
        return 2 * self.link


CHIPS: Mapping[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v4", int(30.75 * GIB), 1.05e9, 275e12, 50e9, 6.25e9, "megacore"),
        Chip("v5e", int(15.75 * GIB), 1.5e9, 197e12, 50e9, 3.125e9),
        Chip("v5p", int(95.73 * GIB), 1.75e9, 459e12, 100e9, 6.25e9),
        Chip("v6e", int(31.24 * GIB), 1.75e9, 918e12, 100e9, 12.5e9),
    )
}
"""From https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and the page of each kind, read in November 2026:
bidirectional bandwidth of a chip ÷ its ports ÷ 2 is that of a link. Memory is what libtpu 0.0.52 names as available
when a program does not fit: the runtime keeps some of the HBM."""
