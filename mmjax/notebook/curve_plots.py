"""Pictures of curves: how a score falls by deletion and rises by insertion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mmjax.core.errors import UserError
from mmjax.evaluation.curves import Curve
from mmjax.notebook.canvas import FAINT, INK, MUTED, canvas, heading, save
from mmjax.notebook.why_plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, TALL = 4.6, 3.0
"""Of one diagram, in thumbnails."""


def curves_picture(
    curves: Mapping[str, tuple[Curve, Curve]], *, title: str = "", path: str | os.PathLike[str] | None = None
) -> Figure:
    """Draws deletion and insertion side by side, a line for each order, with the area under it.

    Args:
      curves: the name of an order -> (deletion, insertion); see `Explanation.curves`.
      title: above both.
      path: where a PNG goes; None only returns the figure.

    Returns:
      The figure.

    Raises:
      UserError: there are no curves, or matplotlib is not installed.
    """
    if not curves:
        raise UserError("curves_picture: there are no curves to draw.")
    above = 0.6 if title else 0.1
    width, height = 2 * SIDE + 2.2, TALL + 1.2 + above
    figure, axes = canvas(width, height, top=-above)
    heading(axes, title, -0.3)
    for place, name in enumerate(("deletion: share left out", "insertion: share put in")):
        box = ((0.8 + place * (SIDE + 1.0)) / width, 0.9 / height, SIDE / width, TALL / height)
        _diagram(axes.inset_axes(box), {label: both[place] for label, both in curves.items()}, name)
    return save(figure, path)


def _diagram(axes: Axes, curves: Mapping[str, Curve], name: str) -> None:
    """Draws one diagram; the first order has a thick line."""
    for number, (label, curve) in enumerate(curves.items()):
        label = f"{label}: {curve.area:.2f}"
        axes.plot(
            curve.share, curve.score, label=label, color=COLOURS[number % len(COLOURS)], lw=1.4 if number else 2.2
        )
    axes.set(xlim=(0, 1), facecolor="white")
    axes.set_xlabel(name, fontsize=9.5, color=INK)
    axes.tick_params(labelsize=8, color=FAINT, labelcolor=MUTED)
    axes.grid(color=FAINT, lw=0.6)
    for spine in axes.spines.values():
        spine.set_edgecolor(FAINT)
    axes.legend(fontsize=8.5, frameon=False, title="score, and the area under it", title_fontsize=8)
