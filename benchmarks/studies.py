"""What `benchmarks.study` can measure: for each study a config, its variants and the columns of its table."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

FUSIONS = {
    "early": "early.Early",
    "mid: co-attention": "co_attention.CoAttention",
    "mid: bottleneck (MBT)": "bottleneck.Bottleneck",
    "late: mean": "late.Late",
    "gated": "gated.Gated",
    "sparse mixture": "mixture.SparseMixture",
    "low-rank tensor (LMF)": "low_rank.LowRankTensor",
    "directed cross-modal (MulT)": "cross_modal.CrossModal",
}
"""Name in the tables -> class in mmjax.fusion."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One row: the cells that name it, and what it sets in the config.

    Attributes:
      cells: column -> text.
      sets: as after `--set`.
    """

    cells: Mapping[str, str]
    sets: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Curve:
    """A picture of how a metric falls.

    Attributes:
      x: label of its axis.
      points: position -> metric.
    """

    x: str
    points: Mapping[float, str]

    def draw(self, rows: Mapping[str, Mapping[str, float]], path: pathlib.Path) -> None:
        """Writes a picture with a line for each row."""
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
        for name, metrics in rows.items():
            axes.plot(list(self.points), [100 * metrics[key] for key in self.points.values()], marker="o", label=name)
        axes.set(xlabel=self.x, ylabel="held-out accuracy, %", ylim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


@dataclasses.dataclass(frozen=True)
class Study:
    """A table.

    Attributes:
      title: of the page.
      about: a paragraph that says what data, what is held out, what is synthetic.
      config: the file.
      runs: its rows.
      columns: title -> metric.
      seeds: runs of each row.
      curves: pictures.
      extras: functions that return more paragraphs (a baseline measured in the same run).
    """

    title: str
    about: str
    config: str
    runs: Sequence[Run]
    columns: Mapping[str, str]
    seeds: int = 3
    curves: Sequence[Curve] = ()
    extras: Sequence[Callable[[], str]] = ()


def fusion(name: str) -> str:
    """Returns the setting that swaps the fusion."""
    return f"model.fusion=mmjax.fusion.{FUSIONS[name]}"


STUDIES: dict[str, Study] = {}
