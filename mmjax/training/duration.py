"""Durations as people give them: '300 steps', '10 epochs', '3e9 examples'."""

from __future__ import annotations

import math
import re

from mmjax.core.errors import UserError

UNITS = ("steps", "epochs", "examples")


def steps(duration: str | int, batch_size: int, examples_per_epoch: int) -> int:
    """Returns duration in whole steps, rounded up, at least 0; an int is steps already.

    Raises:
      UserError: not '<number> steps', '<number> epochs' or '<number> examples'.
    """
    if isinstance(duration, int):
        return duration
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:[eE]\+?\d+)?)\s*(step|epoch|example)s?\s*", str(duration))
    if not found or not math.isfinite(float(found[1])):
        raise UserError(f"duration {duration!r} is not understood; expected '<number> {'|'.join(UNITS)}'.")
    amount, unit = float(found[1]), found[2]
    examples = {"step": batch_size, "epoch": examples_per_epoch, "example": 1}[unit] * amount
    return int(-(-examples // batch_size))
