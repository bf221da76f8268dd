"""Pictures of explanations: heat over pictures, shaded words, waveforms over bands, bars of the modalities' shares.

What a modality looks like follows from its stream: a transform with a tokenizer holds words, a mask of one position a
picture, frames [T, H, W, 3] a film; the rest are sequences of samples.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.core.errors import UserError
from mmjax.notebook.canvas import FAINT, INK, MUTED, canvas, heading, heated, save, thumbnail
from mmjax.notebook.explanation import Explanation
from mmjax.notebook.text import font_families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#3d6fb6", "#d9822b", "#4d9a5b", "#a05195", "#7a8088")
"""Of the modalities in the bars, and of the channels of a recording."""

HEAT = "YlOrRd"
HEIGHT, WIDE, SHARES = 2.0, 4.6, 3.8
"""In thumbnails: of a panel, of one that is no picture, of the bars."""


def why_picture(
    explanations: Sequence[Explanation],
    captions: Sequence[str] = (),
    *,
    title: str = "",
    credit: str = "",
    path: str | os.PathLike[str] | None = None,
    dpi: int = 150,
) -> Figure:
    """Draws examples, one a line: each modality with what speaks for the score, and how much each modality counts.

    Args:
      explanations: of one run; see `LoadedModel.explain`.
      captions: one for each, behind what is explained.
      title: above all.
      credit: whose the pictures are, below the title.
      path: where a PNG goes; None only returns the figure.
      dpi: of the PNG.

    Returns:
      The figure.

    Raises:
      UserError: there is nothing to draw, as many captions as examples are not given, or matplotlib is not installed.
    """
    if not explanations or (captions and len(captions) != len(explanations)):
        raise UserError(f"why_picture: {len(explanations)} explanations and {len(captions)} captions do not fit.")
    names = list(dict.fromkeys(name for each in explanations for name in each.streams))
    widths = {name: max(_width(each, name) for each in explanations if name in each.streams) for name in names}
    pitch, above = HEIGHT + 1.15, (0.6 if title else 0.1) + (0.25 if credit else 0.0)
    across = sum(widths.values()) + 0.3 * len(names) + SHARES + 0.2
    figure, axes = canvas(across, len(explanations) * pitch + above, -above)
    heading(axes, title, 0.3 - above)
    _write(axes, 0.15, 0.6 - above, credit, color=MUTED, fontsize=8)
    for number, each in enumerate(explanations):
        _line(axes, each, captions[number] if captions else "", widths, number * pitch)
    return save(figure, path, dpi)


def _line(axes: Axes, explanation: Explanation, caption: str, widths: Mapping[str, float], top: float) -> None:
    """Draws one example: what is explained, its modalities side by side, its shares."""
    left, what = 0.15, f"{explanation.label} = {explanation.value:.2f}"
    _write(axes, left, top + 0.25, what, weight="bold")
    _write(axes, left + 0.2 + 1.12 * _text_width(what, 11), top + 0.25, caption, color=MUTED)
    for name, width in widths.items():
        if name in explanation.streams:
            _panel(axes, explanation, name, left, top + 0.8)
        else:
            _write(axes, left, top + 0.62, f"{name}: missing", color=MUTED, fontsize=9.5)
        left += width + 0.3
    _bars(axes, explanation, list(widths), left + 0.1, top + 0.8)


def _width(explanation: Explanation, name: str) -> float:
    return 2 * HEIGHT + 0.1 if explanation.streams[name].mask.shape[1] == 1 else WIDE


def _panel(axes: Axes, explanation: Explanation, name: str, left: float, top: float) -> None:
    """Draws one modality under its name."""
    stream, relevancy = explanation.streams[name], explanation.relevancy[name]
    how = "" if explanation.attended[name] else " (gradient × input)"
    _write(axes, left, top - 0.18, f"{name}{how}", color=MUTED, fontsize=9.5)
    transform = explanation.run.transform(name)
    values, mask = np.asarray(stream.values)[0], np.asarray(stream.mask)[0]
    if hasattr(transform, "tokenizer"):
        _words(axes, [transform.tokenizer.decode([i]) for i in values[mask]], relevancy[mask], left, top)
    elif len(mask) == 1:
        thumbnail(axes, values, left, top, FAINT, size=HEIGHT)
        thumbnail(axes, heated(values, relevancy), left + HEIGHT + 0.1, top, FAINT, size=HEIGHT)
    elif values.ndim == 4 and values.shape[-1] == 3:
        _film(axes, values[mask], relevancy, left, top)
    else:
        _waves(axes, values.reshape(len(values), -1), mask, relevancy, left, top)


def _words(axes: Axes, words: Sequence[str], relevancy: np.ndarray, left: float, top: float) -> None:
    """Writes words side by side, each on a colour of its relevancy; words without a visible character are marks.

    Marks have no colour: that which the tower reads its vector from outshines every word.
    """
    from matplotlib.patches import FancyBboxPatch

    x, y, size = left, top + 0.05, 11.5
    visible = np.array([bool(word.strip()) for word in words], bool)
    shares = np.zeros(len(words))
    shares[visible] = _scaled(relevancy[visible])
    for word, share in zip(words, shares, strict=True):
        shown = word.strip() or "·"
        width = _text_width(shown, size) + 0.16
        if x + width > left + WIDE and x > left:
            x, y = left, y + 0.5
        if y + 0.4 > top + HEIGHT:
            _write(axes, x, y + 0.2, "…", color=MUTED)
            return
        box = FancyBboxPatch((x, y), width, 0.4, boxstyle="round,pad=0,rounding_size=0.06", lw=0.6, zorder=2)
        box.set(facecolor=_heat(share), edgecolor=FAINT)
        axes.add_patch(box)
        ink = "white" if share > 0.7 else INK
        _write(axes, x + 0.08, y + 0.2, shown, fontsize=size, color=ink, zorder=3, family=font_families(shown))
        x += width + 0.07


def _waves(axes: Axes, values: np.ndarray, mask: np.ndarray, relevancy: np.ndarray, left: float, top: float) -> None:
    """Draws the channels [T, C] as lines, each in its own band, over what of the time is relevant."""
    from matplotlib.patches import Rectangle

    _band(axes, relevancy, left, top, WIDE, HEIGHT)
    channels = min(values.shape[1], 6)
    x = left + WIDE * (np.arange(len(values)) + 0.5) / len(values)
    for channel in range(channels):
        line = np.where(mask, np.nan_to_num(values[:, channel].astype(np.float64), nan=np.nan), np.nan)
        if not np.isfinite(line).any():
            continue
        low, high = np.nanmin(line), np.nanmax(line)
        height = HEIGHT / channels
        y = top + height * (channel + 0.9 - 0.8 * (line - low) / max(high - low, 1e-12))
        axes.plot(x, y, color=INK, lw=0.9 if len(values) < 2000 else 0.35, zorder=3)
    axes.add_patch(Rectangle((left, top), WIDE, HEIGHT, fill=False, edgecolor=FAINT, lw=0.8, zorder=2))


def _film(axes: Axes, frames: np.ndarray, relevancy: np.ndarray, left: float, top: float) -> None:
    """Draws some frames [T, H, W, 3] over a band of what of the time is relevant."""
    count = min(len(frames), 4)
    size = (WIDE - 0.1 * (count - 1)) / max(count, 2)
    for place, frame in enumerate(np.linspace(0, len(frames) - 1, count).round().astype(int)):
        thumbnail(axes, frames[frame], left + place * (size + 0.1), top, FAINT, size=size)
    _band(axes, relevancy, left, top + size + 0.12, WIDE, 0.35)


def _band(axes: Axes, relevancy: np.ndarray, left: float, top: float, width: float, height: float) -> None:
    extent = (left, left + width, top + height, top)
    colours = np.array([_heat(share) for share in _scaled(relevancy.ravel())])[None]
    axes.imshow(colours, extent=extent, aspect="auto", interpolation="nearest", alpha=0.7, zorder=1)


def _bars(axes: Axes, explanation: Explanation, names: Sequence[str], left: float, top: float) -> None:
    """Draws a bar for each modality, as long as its share, with what it adds to the score."""
    _write(
        axes,
        left,
        top - 0.18,
        f"{explanation.value:.2f} with all, {explanation.nothing:.2f} with nothing",
        fontsize=9.5,
        color=MUTED,
    )
    for place, name in enumerate(names):
        share = explanation.shares.get(name, 0.0)
        added = float(explanation.shapley[name].sum()) if name in explanation.shapley else 0.0
        y = top + 0.6 * place
        _write(axes, left, y + 0.1, name, fontsize=9.5)
        _write(axes, left + SHARES - 0.3, y + 0.1, f"{share:.0%}  ({added:+.2f})", fontsize=9.5, ha="right")
        for length, colour in ((1.0, FAINT), (share, COLOURS[place % len(COLOURS)])):
            axes.barh(y + 0.35, length * (SHARES - 0.3), height=0.2, left=left, color=colour, zorder=2)


def _scaled(relevancy: np.ndarray) -> np.ndarray:
    """Returns shares of the highest value, the lowest being 0: what is alike everywhere says nothing."""
    low, high = float(np.min(relevancy, initial=np.inf)), float(np.max(relevancy, initial=-np.inf))
    return (relevancy - low) / (high - low) if high > low else np.zeros_like(relevancy)


def _heat(share: float) -> Any:
    from matplotlib import colormaps

    return colormaps[HEAT](0.85 * share) if share > 0.02 else (1.0, 1.0, 1.0, 1.0)


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    usual = {"fontsize": 11, "va": "center", "color": INK, "parse_math": False}
    axes.text(x, y, text, **usual | style)


def _text_width(text: str, size: float) -> float:
    """Returns the width of text in thumbnails."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    from mmjax.notebook.canvas import INCH

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return width / 72 / INCH
