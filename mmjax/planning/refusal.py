"""Why a compiler refuses a program that is correct: a memory of the device has no room for it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmjax.core.errors import UserError
from mmjax.planning.chips import GIB
from mmjax.planning.estimate import part_of

_SIZE = r"([\d.]+)([KMGT]?)i?B?"
_NO_ROOM = (
    re.compile(rf"\({_SIZE}\) exceeds available HBM \({_SIZE}\)"),  # before it places anything
    re.compile(rf"memory space hbm\. Used {_SIZE} of {_SIZE} hbm"),  # after: with a report
)
_ON_CHIP = re.compile(r"memory space (\w+)\b|exceeded scoped (\w+)\b|would exceed memory .*?space=(\w+)", re.DOTALL)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_REPORTED = re.compile(rf"^ *\d+\. Size: {_SIZE}(.*?)(?:={{5}}|\Z)", re.MULTILINE | re.DOTALL)


class DoesNotFit(Exception):
    """The compiler refuses a program that needs more HBM than a device has.

    Attributes:
      needed, available: bytes.
      temporaries: needed is that of the temporary arrays alone.
      largest: (bytes, shape and part of the model) of the largest allocations, where the compiler names any.
    """

    def __init__(self, needed: int, available: int, largest: Sequence[tuple[int, str]] = (), temporaries: bool = False):
        super().__init__(f"{needed / GIB:.2f} GiB of {available / GIB:.2f} GiB")
        self.needed, self.available, self.largest = needed, available, list(largest)
        self.temporaries = temporaries


def refusal(message: str) -> DoesNotFit | UserError | None:
    """Returns what a compiler's error means for the one who plans, None where it is no lack of memory.

    A UserError is about memories other than HBM, which no choice of a plan's makes larger.
    """
    for pattern in _NO_ROOM:
        if found := pattern.search(message):
            needed, unit, available, available_unit = found.groups()
            sizes = _bytes(needed, unit), _bytes(available, available_unit)
            return DoesNotFit(*sizes, _largest(message), "HLO temporaries (" in message)
    if found := _ON_CHIP.search(message):
        space = next(filter(None, found.groups()))
        first = next((line for line in message.splitlines() if found.group(0).splitlines()[0] in line), message)
        return UserError(
            f"the compiler has no room in {space}, a memory on the chip itself, which no mesh makes larger: make the "
            f"tiles or the batch of one call smaller (batch_parts, chunk_size). It says: {first.strip()[:300]}"
        )
    return None


def _largest(message: str) -> list[tuple[int, str]]:
    """Returns the allocations of the compiler's report in its order, the largest first."""
    found = []
    for number, unit, text in _REPORTED.findall(message):
        shape, source = re.search(r"Shape: ([^\s{]+)", text), re.search(r'op_name="([^"]*)"', text)
        part = part_of(source.group(1)) if source else "other"
        found.append((_bytes(number, unit), f"{shape.group(1) if shape else 'an array'} {part}"))
    return found


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])
