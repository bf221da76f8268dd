"""What a check finds, and what all processes of a job find together."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmjax.core.secrets import masked

FINE, DOUBTFUL, WRONG = "fine", "doubtful", "wrong"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. Credentials in its texts are masked.

    Attributes:
      what: was looked at.
      found: what it is.
      state: FINE, DOUBTFUL (it runs, but slowly or at a risk) or WRONG (it will fail).
      advice: how to mend it; '' where it is fine.
    """

    what: str
    found: str
    state: str = FINE
    advice: str = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, masked(getattr(self, field.name)))


def of_all_processes(mine: Sequence[Finding]) -> list[Finding]:
    """Returns those of process 0, and after them what is not fine in the others; every process calls it."""
    if jax.process_count() == 1:
        return list(mine)
    told = [finding for finding in mine if jax.process_index() == 0 or finding.state != FINE]
    text = np.frombuffer(json.dumps([dataclasses.asdict(finding) for finding in told]).encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array([len(text)], np.int32))).reshape(-1)  # [processes]
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(padded))  # [processes, longest]
    return [
        Finding(**found) if not process else Finding(**(found | {"what": f"process {process}: {found['what']}"}))
        for process, (row, size) in enumerate(zip(rows, sizes, strict=True))
        for found in json.loads(row[:size].tobytes())
    ]
