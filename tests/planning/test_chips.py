"""What is known of a GPU from what it says of itself."""

import pytest

from mmjax.planning.chips import CHIPS, GPUS, gpu_chip


class Gpu:
    def __init__(self, kind, stats):
        self.device_kind, self._stats = kind, stats

    def memory_stats(self):
        return self._stats


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 PCIe", None),  # slower in everything
        ("NVIDIA H100 NVL", None),
        ("NVIDIA L4", None),
    ],
)
def test_kinds(kind, name):
    found = gpu_chip(Gpu(kind, {}))
    assert found == (GPUS[name] if name else None)


def test_memory_is_what_the_device_gives():
    found = gpu_chip(Gpu("NVIDIA H100 80GB HBM3", {"bytes_limit": 12345}))
    assert found.memory == 12345 and found.memory_from == "measured" and found.clock is None
    assert gpu_chip(Gpu("NVIDIA H100 80GB HBM3", None)).memory_from == "assumption"


def test_the_clock_of_a_tpu_gives_its_peak():
    for chip in CHIPS.values():  # products of 128 x 128 units, or of 256 x 256 on v6e, in a whole number of units
        units = chip.peak_flops / chip.clock / 2 / (256**2 if chip.name == "v6e" else 128**2)
        assert units == pytest.approx(round(units), rel=0.02)
