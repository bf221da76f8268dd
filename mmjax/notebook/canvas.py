"""What the pictures are drawn with: a canvas whose unit is one thumbnail, thumbnails with frames, captions.

matplotlib is imported where it is used, as it is optional; pyplot never.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from mmjax.core.errors import UserError
from mmjax.notebook.text import font_families, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

RIGHT, FAINT, INK, MUTED = "#12924a", "#dcdcdc", "#1f2328", "#7a8088"
INCH = 0.78
"""Inches a thumbnail."""


def canvas(width: float, height: float, top: float = 0.0) -> tuple[Figure, Axes]:
    """Returns a figure of width x height thumbnails and its one axes, y downwards from top.

    Raises:
      UserError: matplotlib is not installed.
    """
    try:
        from mmjax.notebook.figure import Picture
    except ImportError as error:
        raise UserError("Pictures need matplotlib: pip install 'mmjax[demo]'") from error
    figure = Picture(figsize=(width * INCH, height * INCH), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    axes.set(xlim=(0, width), ylim=(top + height, top))
    return figure, axes


def thumbnail(
    axes: Axes,
    image: np.ndarray,
    left: float,
    top: float,
    frame: str,
    tick: bool = False,
    *,
    size: float = 1.0,
    dashed: bool = False,
) -> None:
    """Draws image, its longer side fitted into a square, with a frame and, if it is right, a tick."""
    high, wide = image.shape[0] / max(image.shape[:2]), image.shape[1] / max(image.shape[:2])
    x, y = left + size * (1 - wide) / 2, top + size * (1 - high) / 2
    extent = (x, x + size * wide, y + size * high, y)
    smooth = {"interpolation": "lanczos", "interpolation_stage": "rgba"}
    shown = axes.imshow(image, extent=extent, aspect="auto", zorder=1, **smooth)
    shown.set_clip_path(outline(axes, left, top, size, frame, 2.6 if tick else 0.9, "--" if dashed else "-"))
    if tick:
        centre = (left + size - 0.1, top + 0.1)
        axes.scatter(*centre, s=105, color=RIGHT, zorder=4, linewidths=1.2, edgecolors="white")
        mark = np.array([(-0.05, 0.0), (-0.015, 0.04), (0.055, -0.045)]) + centre
        axes.plot(*mark.T, color="white", lw=1.6, zorder=5, solid_capstyle="round", solid_joinstyle="round")


def outline(axes: Axes, left: float, top: float, size: float, color: str, width: float, style: str = "-") -> Patch:
    """Draws a rounded square outline and returns it."""
    from matplotlib.patches import FancyBboxPatch

    shape = f"round,pad=0,rounding_size={0.05 * size}"
    line = {"fill": False, "edgecolor": color, "linewidth": width, "linestyle": style}
    return axes.add_patch(FancyBboxPatch((left, top), size, size, boxstyle=shape, zorder=3, **line))


def heated(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the picture in grey under the weights [h, w], enlarged smoothly: [H, W, 3] uint8."""
    import cv2
    from matplotlib import colormaps

    height, width = image.shape[:2]
    share = np.nan_to_num(weights / max(float(np.nanmax(weights)), 1e-12))
    share = np.clip(cv2.resize(share, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)[..., None]  # [H, W, 1]
    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    heat = 255 * colormaps["inferno"](share[..., 0])[..., :3]
    opacity = 0.25 + 0.6 * share
    return ((1 - opacity) * grey + opacity * heat).astype(np.uint8)


def heading(axes: Axes, title: str, y: float) -> None:
    """Writes the title at the left."""
    axes.text(0.1, y, title, fontsize=13, weight="bold", va="center", color=INK, parse_math=False)


def caption_beside(axes: Axes, caption: str, right: float, y: float, width: int, lines: int) -> None:
    """Writes a caption that ends at right, broken into lines of `width` characters, centred on y."""
    text = wrapped(caption, width, lines)
    style = {"fontsize": 11, "family": font_families(text), "parse_math": False, "linespacing": 1.25}
    axes.text(right, y, text, ha="right", va="center", color=INK, **style)


def save(figure: Figure, path: str | os.PathLike[str] | None, dpi: int = 150) -> Figure:
    """Writes the PNG, local or remote, its folder made; without a path only returns the figure."""
    if path is None:
        return figure
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=dpi)
    return figure
