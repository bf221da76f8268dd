"""Captions in pictures: broken into lines, in fonts that hold their characters."""

from __future__ import annotations

import functools
import textwrap
import unicodedata


def wrapped(text: str, width: int, lines: int) -> str:
    """Breaks text into at most `lines` lines of `width` narrow characters; what is left out becomes '…'.

    The lines are about equally long. Wide characters (Chinese, Japanese, Korean) count as two.
    """
    text = " ".join(text.split())
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    width = max(4, round(width * len(text) / max(len(text) + wide, 1)))
    wrap = functools.partial(textwrap.wrap, text, break_on_hyphens=False)
    full = wrap(width)
    if len(full) > lines:
        return "\n".join(wrap(width, max_lines=lines, placeholder=" …"))
    balanced = (wrap(narrow) for narrow in range(width // 2, width + 1))
    return "\n".join(next(tried for tried in balanced if len(tried) == len(full)))


def font_families(text: str) -> list[str]:
    """Returns families for matplotlib that cover text: its own DejaVu Sans, then installed fonts for what that lacks.

    A character that no installed font has is drawn as a box, and matplotlib warns.
    """
    families = ["DejaVu Sans"]
    missing = {ord(c) for c in text if not c.isspace()} - _covered(families[0])
    for family in _installed() if missing else ():
        if missing & _covered(family):
            families.append(family)
            missing -= _covered(family)
    return families


@functools.cache
def _installed() -> dict[str, str]:
    """Family -> font file that matplotlib finds, without the one of last resort, a box for every character."""
    from matplotlib import font_manager

    fonts = sorted(font_manager.fontManager.ttflist, key=lambda font: (font.name, font.style != "normal", font.fname))
    regular = [font for font in fonts if font.weight in (400, "normal", "regular", "book")]
    return {font.name: font.fname for font in reversed(regular) if not font.name.startswith("Last Resort")}


@functools.cache
def _covered(family: str) -> frozenset[int]:
    """The code points that an installed font has."""
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(_installed()[family]).get_charmap())
