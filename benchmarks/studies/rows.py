"""Rows of a study: what they set in a config, and what was measured of them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Run:
    """One row: the cells that name it, and what it sets in the config.

    Attributes:
      cells: column -> text.
      sets: as after `--set`.
      config: size of the config; '' is its default.
      teacher: 'FILE:SIZE' of the config that trains its model's teacher first, with the same seed; '' for none.
      file: the config, where it is another than the study's.
    """

    cells: Mapping[str, str]
    sets: Sequence[str] = ()
    config: str = ""
    teacher: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        """The cells that name it as one string."""
        return ", ".join(value for value in self.cells.values() if value)


Rows = Sequence[tuple[Run, list[dict[str, float]]]]
"""What was measured: each row with its metrics, seed by seed."""


def mean_of(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns metric -> mean over the seeds."""
    return {key: statistics.fmean(each[key] for each in found) for key in found[0]}


def beside(one: Sequence[float], other: Sequence[float]) -> str:
    """Returns how one's scores over the seeds stand beside another's, the larger the better."""
    ahead = statistics.fmean(one) - statistics.fmean(other)
    spread = max(statistics.stdev(scores) if len(scores) > 1 else 0.0 for scores in (one, other))
    return "beats" if ahead > spread else "does not beat" if ahead <= 0 else "is ahead, within the spread, of"
