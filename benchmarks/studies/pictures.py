"""Curves of a study."""

from __future__ import annotations

import abc
import dataclasses
import pathlib
from collections.abc import Mapping

from benchmarks.studies.rows import Rows, mean_of


@dataclasses.dataclass(frozen=True)
class Picture(abc.ABC):
    """Lines in a picture.

    Attributes:
      x, y: labels of the axes.
      top: the highest value that is shown, in %; None: the highest that there is.
      log: positions lie on a logarithmic axis.
    """

    x: str
    y: str = dataclasses.field(default="held-out accuracy, %", kw_only=True)
    top: float | None = dataclasses.field(default=100, kw_only=True)
    log: bool = dataclasses.field(default=False, kw_only=True)

    @abc.abstractmethod
    def lines(self, rows: Rows) -> dict[str, dict[float, float]]:
        """Returns the name of each line -> position -> value, the mean over the seeds."""

    def draw(self, rows: Rows, path: pathlib.Path) -> None:
        """Writes the picture."""
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
        lines = self.lines(rows)
        for name, line in lines.items():
            axes.plot(list(line), [100 * value for value in line.values()], marker="o", label=name)
        axes.set(xlabel=self.x, ylabel=self.y, ylim=(0, self.top))
        if self.log:
            places = sorted({x for line in lines.values() for x in line})
            axes.set_xscale("log")
            axes.set_xticks(places, [f"{x:g}" for x in places])
            axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


@dataclasses.dataclass(frozen=True)
class Curve(Picture):
    """How a metric falls from column to column: a line for each row.

    Attributes:
      points: position -> metric; they are columns of the table too.
    """

    points: Mapping[float, str]

    def lines(self, rows: Rows) -> dict[str, dict[float, float]]:
        """Returns the name of each row -> its points."""
        means = {run.name: mean_of(found) for run, found in rows}
        return {name: {x: found[metric] for x, metric in self.points.items()} for name, found in means.items()}


@dataclasses.dataclass(frozen=True)
class RowCurve(Picture):
    """How one metric changes from row to row: a line for all rows that are equal but for one cell.

    Attributes:
      cell: the column whose text is the position, such as '5 %'.
      metric: what is drawn.
    """

    cell: str
    metric: str

    def lines(self, rows: Rows) -> dict[str, dict[float, float]]:
        """Returns what the other cells say -> position -> the metric."""
        found: dict[str, dict[float, float]] = {}
        for run, seeds in rows:
            name = ", ".join(text for column, text in run.cells.items() if column != self.cell)
            found.setdefault(name, {})[float(run.cells[self.cell].rstrip(" %"))] = mean_of(seeds)[self.metric]
        return found
