"""A table of what a model's parameters are."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from mmjax.core.trees import flatten


def parameter_overview(params: Any, depth: int = 2) -> Table:
    """Returns a rich table of the number of parameters under each path, cut at `depth` names."""
    counts: dict[str, int] = {}
    for name, leaf in flatten(params).items():
        key = "/".join(name.split("/")[:depth])
        counts[key] = counts.get(key, 0) + leaf.size
    table = Table("parameters of", "count", title=f"{sum(counts.values()):,} parameters")
    table.columns[1].justify = "right"
    for key, count in counts.items():
        table.add_row(key, f"{count:,}")
    return table
