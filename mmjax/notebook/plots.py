"""Pictures of what a model finds: retrieval, the similarity matrix, attention maps.

Every function returns a `matplotlib.figure.Figure` made without pyplot: no display, no global state. A notebook shows
it as the last value of a cell.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.types import Array
from mmjax.notebook.canvas import FAINT, MUTED, RIGHT, canvas, caption_beside, heading, heated, outline, save, thumbnail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def retrieval_picture(
    path: str | os.PathLike[str] | None,
    captions: Sequence[str],
    images: Array,
    ranked: Array,
    correct: Array,
    *,
    meant: Array | None = None,
    title: str = "",
    credit: str = "",
    dpi: int = 150,
) -> Figure:
    """Draws captions, each with the pictures found for it, best first; right ones have a green frame and a tick.

    Args:
      path: where the PNG goes, its folder is made; None only returns the figure.
      captions: Q strings.
      images: [M, H, W, 3] uint8.
      ranked: [Q, K] int, rows of images.
      correct: [Q, K] bool.
      meant: [Q] int, the picture each caption belongs to; shown apart for captions that missed it.
      title: above the pictures.
      credit: whose the pictures are, below the title.
      dpi: of the PNG.

    Returns:
      The figure.

    Raises:
      UserError: shapes disagree, or matplotlib is not installed.
    """
    images, ranked, correct = np.asarray(images), np.asarray(ranked), np.asarray(correct, bool)
    _check_ranked(captions, images, ranked, correct)
    found, width = ranked.shape[1], 3.1
    panels = 1 if len(captions) <= 6 else 2
    lines = -(-len(captions) // panels)
    pitch, panel = 1.14, width + 1.08 * found + (1.5 if meant is not None else 0.3)
    above = 1.2 if title else 0.8
    figure, axes = canvas(panels * panel + 0.1, lines * pitch + above, top=-above)
    heading(axes, title, -0.95)
    below = "    ".join(filter(None, (_tally(correct), credit)))
    axes.text(0.1, -0.55, below, fontsize=9.5, va="center", color=MUTED)
    for side in range(panels):
        _header(axes, side * panel + width, found, meant is not None)
    for i, caption in enumerate(captions):
        left, top = (i // lines) * panel, (i % lines) * pitch
        caption_beside(axes, caption, left + width - 0.18, top + 0.5, width=25, lines=3)
        for rank in range(found):
            frame = RIGHT if correct[i, rank] else FAINT
            thumbnail(axes, images[ranked[i, rank]], left + width + 1.08 * rank, top, frame, correct[i, rank])
        if meant is not None and not correct[i].any():
            thumbnail(axes, images[meant[i]], left + width + 1.08 * found + 0.22, top, MUTED, dashed=True)
    return save(figure, path, dpi)


def similarity_picture(
    similarity: Array,
    captions: Sequence[str],
    images: Array,
    *,
    title: str = "",
    correct: Array | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draws a heat map of captions against pictures, with the pictures along the top.

    Args:
      similarity: [Q, M] float.
      captions: Q strings.
      images: [M, H, W, 3] uint8.
      title: above the map.
      correct: [Q, M] bool, cells that get a green frame; None frames none.
      path: where a PNG goes; None only returns the figure.

    Returns:
      The figure.

    Raises:
      UserError: shapes disagree, or matplotlib is not installed.
    """
    similarity, images = np.asarray(similarity, np.float32), np.asarray(images)
    if similarity.shape != (len(captions), len(images)):
        raise UserError(
            f"similarity_picture: the matrix has shape {similarity.shape}, but there are {len(captions)} captions and "
            f"{len(images)} pictures; expected ({len(captions)}, {len(images)})."
        )
    rows, columns, width = *similarity.shape, 3.6
    above = 1.65 if title else 1.1
    figure, axes = canvas(width + columns + 1.3, rows + above + 0.1, top=-above)
    heading(axes, title, -1.4)
    heat = axes.imshow(similarity, extent=(width, width + columns, rows, 0), cmap="magma", interpolation="nearest")
    middle = (np.nanmin(similarity) + np.nanmax(similarity)) / 2
    for j, image in enumerate(images):
        thumbnail(axes, image, width + j + 0.04, -0.98, FAINT, size=0.92)
    for i, caption in enumerate(captions):
        caption_beside(axes, caption, width - 0.18, i + 0.5, width=28, lines=3)
        for j, value in enumerate(similarity[i] if columns <= 16 else []):
            ink = "white" if value < middle else "black"
            axes.text(width + j + 0.5, i + 0.5, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8.5)
    for i, j in np.argwhere(correct) if correct is not None else []:
        outline(axes, width + j + 0.05, i + 0.05, 0.9, "#35d07f", 2.2)
    bar = axes.inset_axes((width + columns + 0.3, 0.0, 0.22, rows), transform=axes.transData)
    figure.colorbar(heat, cax=bar).outline.set_visible(False)
    bar.tick_params(labelsize=8, color=MUTED, labelcolor=MUTED)
    return save(figure, path)


def attention_picture(
    image: Array,
    attention: Array,
    *,
    title: str = "",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draws where each attention head looks: the picture, the mean of the heads, and each head.

    Args:
      image: [H, W, 3] uint8.
      attention: [heads, h, w] float, weights over the patches; each map is scaled to its own highest value.
      title: above the pictures.
      path: where a PNG goes; None only returns the figure.

    Returns:
      The figure.

    Raises:
      UserError: shapes are not these, or matplotlib is not installed.
    """
    image, attention = np.asarray(image), np.asarray(attention, np.float32)
    if attention.ndim != 3 or image.ndim != 3 or image.shape[-1] != 3:
        raise UserError(
            f"attention_picture: expected a picture [H, W, 3] and attention [heads, h, w]; got {image.shape} and "
            f"{attention.shape}."
        )
    maps = [("picture", None), ("mean", attention.mean(axis=0))]
    maps += [(f"head {i + 1}", weights) for i, weights in enumerate(attention)]
    lines, size, pitch = -(-len(maps) // 7), 1.7, 2.1
    columns, above = -(-len(maps) // lines), 0.5 if title else 0.1
    figure, axes = canvas(columns * (size + 0.1) + 0.1, lines * pitch + above, top=-above)
    heading(axes, title, -0.25)
    for i, (name, weights) in enumerate(maps):
        left, top = 0.1 + (i % columns) * (size + 0.1), (i // columns) * pitch
        thumbnail(axes, image if weights is None else heated(image, weights), left, top, FAINT, size=size)
        axes.text(left + size / 2, top + size + 0.17, name, ha="center", va="center", fontsize=9.5, color=MUTED)
    return save(figure, path)


def _header(axes: Axes, left: float, found: int, meant: bool) -> None:
    """Writes the ranks 1 to found above a panel."""
    names = [(1.08 * rank, str(rank + 1)) for rank in range(found)] + [(1.08 * found + 0.22, "meant")] * meant
    for offset, name in names:
        axes.text(left + offset + 0.5, -0.16, name, ha="center", va="center", fontsize=9, color=MUTED)


def _tally(correct: np.ndarray) -> str:
    """How many captions have the right picture first, and among all shown."""
    first, among = int(correct[:, 0].sum()), int(correct.any(axis=1).sum())
    total, found = correct.shape
    return f"of these {total} captions, the right picture is first for {first} and among the first {found} for {among}"


def _check_ranked(captions: Sequence[str], images: np.ndarray, ranked: np.ndarray, correct: np.ndarray) -> None:
    """Raises UserError unless there is something to draw and it fits together."""
    fits = ranked.ndim == 2 and ranked.size and len(ranked) == len(captions) and ranked.shape == correct.shape
    if not fits or images.ndim != 4 or not 0 <= ranked.min() <= ranked.max() < len(images):
        raise UserError(
            f"retrieval_picture: {len(captions)} captions, pictures {images.shape}, ranked {ranked.shape} and correct "
            f"{correct.shape} do not fit; expected Q captions, [M, H, W, 3], [Q, K] rows of it and [Q, K]."
        )
