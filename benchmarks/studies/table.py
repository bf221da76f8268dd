"""What a study is: rows that name a config and what they set, columns that name a metric."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

from benchmarks.studies.pictures import Picture
from benchmarks.studies.rows import Rows, Run

ROOT = pathlib.Path(__file__).parent.parent.parent


@dataclasses.dataclass(frozen=True)
class Study:
    """A table.

    Attributes:
      title: of the page.
      about: a paragraph that says what data, what is held out, what is synthetic; line breaks count for nothing.
      config: the file.
      runs: its rows.
      columns: title -> metric.
      seeds: runs of each row.
      curve: the picture.
      smoke_teacher: Run.teacher at the smoke size.
      extras: functions of the rows that return more paragraphs (a baseline measured in the same run, what follows).
    """

    title: str
    about: str
    config: str
    runs: Sequence[Run]
    columns: Mapping[str, str]
    seeds: int = 3
    curve: Picture | None = None
    smoke_teacher: str = ""
    extras: Sequence[Callable[[Rows], str]] = ()
