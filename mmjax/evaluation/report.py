"""The table a person reads at the end: one row per way of evaluating, one column per metric."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def results_table(metrics: Mapping[str, float], title: str = "Results") -> Table:
    """Lays metrics out as a table; as one for each evaluation, below each other, where an evaluation has several rows.

    `image_to_text/recall_at_1` is row 'image → text', column 'R@1'; `mean_recall_at_1` is row 'mean', column 'R@1'; a
    metric with neither a '/' nor 'mean_' is in a row without a name. A prefix that all names share is left out.

    Args:
      metrics: name -> value; shares (recall_at_k, top_k, accuracy, F1) are shown as percentages.
      title: above the table.

    Returns:
      A rich Table of the title and the tables; print it with rich, or see `results_text`.
    """
    metrics = _without_shared_prefix(metrics)
    several = any(name.count("/") > 1 for name in metrics)
    parts: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        evaluation, _, rest = name.partition("/") if several and "/" in name else ("", "", name)
        parts.setdefault(evaluation, {})[rest] = value
    tables = Table.grid()
    tables.add_row(Text(title, style="table.title", overflow="fold"))  # a Table would cut it at its own width
    for evaluation, found in parts.items():
        tables.add_row(_table(found, corner=evaluation))
    return tables


def _table(metrics: Mapping[str, float], corner: str) -> Table:
    """Lays metrics out as one table, with `corner` at its top left."""
    cells: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        row, column = _place(name, metrics)
        cells.setdefault(row, {})[column] = value
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(corner, no_wrap=True)
    for column in columns:
        table.add_column(_column_title(column), justify="right")
    for row, values in cells.items():
        shown = [_shown(column, values[column]) if column in values else "" for column in columns]
        table.add_row(_row_title(row), *shown, style="bold" if row == "mean" else None)
    return table


def results_text(metrics: Mapping[str, float], title: str = "Results", width: int = 100) -> str:
    """Returns `results_table` as plain text, for a log or a file."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(results_table(metrics, title))
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).strip("\n")


def _without_shared_prefix(metrics: Mapping[str, float]) -> dict[str, float]:
    """Drops 'retrieval/' where every name starts with it and rows with names remain."""
    prefix = posixpath.commonpath(metrics) + "/" if metrics else ""
    short = {name.removeprefix(prefix): value for name, value in metrics.items()}
    return short if any("/" in name for name in short) else dict(metrics)


def _place(name: str, metrics: Mapping[str, float]) -> tuple[str, str]:
    """Metric name -> (row, column); 'mean_x' is the mean row where some other row has an x."""
    row, _, column = name.rpartition("/")
    if column.startswith("mean_") and any(other.endswith(f"/{column.removeprefix('mean_')}") for other in metrics):
        return (f"{row}/mean" if row else "mean"), column.removeprefix("mean_")
    return row, column


def _row_title(row: str) -> str:
    return row.replace("_to_", " → ").replace("/", ": ").replace("+", " + ")


def _column_title(column: str) -> str:
    return re.sub(r"^recall_at_", "R@", re.sub(r"top_(\d+)$", r"top-\1", column)).replace("_", " ")


def _shown(column: str, value: float) -> str:
    if re.search(r"recall_at_\d+$|top_\d+$|mean_per_class$|accuracy$|_f1$", column):
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if column == "median_rank" else f"{value:.4g}"
