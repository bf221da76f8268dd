"""Names of one thing, and pictures that are almost one, in one group: a split by groups has none on both sides."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

COMMON = frozenset(
    """a and arrow big black blue brown button closed dark down face first full green hand heavy high in last large left
    light low mark music musical new no old on oncoming open orange person purple quarter red right sign small symbol up
    upwards white yellow""".split()  # noqa: SIM905 (47 words in a list are 47 lines)
)
"""Words that two things may share without being one: colours, sizes, directions, and what half of the emoji are."""

ALIKE = 0.02
"""Pictures whose pixels in [0, 1] have a smaller mean squared difference are almost one."""

_PHRASE = re.compile(r"\s(?=(?:with|without|in|of|on|over|but|showing|at|for|to|behind|not)\s)")
_WORD = re.compile(r"[\w’'-]+")
_IRREGULAR = {"women": "woman", "men": "man", "people": "person", "leaves": "leaf", "glasses": "glasses"}


def keys(name: str) -> list[str]:
    """Returns what ties a name to others: the words of its thing but for COMMON ones, and the phrase that follows.

    'smiling cat with heart-eyes' has 'smiling', 'cat' and 'with heart-eyes'; 'right arrow' has itself alone.
    """
    thing, *phrase = _PHRASE.split(name.lower(), maxsplit=1)
    words = [_singular(word) for word in _WORD.findall(thing)]
    return [word for word in words if word not in COMMON] + phrase or [name.lower()]


def groups(names: Sequence[str], pictures: np.ndarray | None = None) -> list[str]:
    """Returns the group of each name: names with a key in common are in one, and so on from name to name.

    A group is called by the first of its names, in the order of the alphabet. 'crying cat' is in one group with 'cat
    face' and 'crying face'; so is whatever shares a word with one of these.

    Args:
      names: of N things.
      pictures: [N, ...] uint8, of the same; those that are `alike` are in one group, whatever their names.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    firsts = []
    for name in names:
        first, *others = keys(name)
        firsts.append(first)
        for other in others:
            parent[root(other)] = root(first)
    for one, other in [] if pictures is None else alike(pictures):
        parent[root(firsts[other])] = root(firsts[one])
    roots = [root(first) for first in firsts]
    called: dict[str, str] = {}
    for name, group in sorted(zip(names, roots, strict=True)):
        called.setdefault(group, name)
    return [called[group] for group in roots]


def alike(pictures: np.ndarray) -> np.ndarray:
    """Returns the pairs [M, 2] of pictures [N, ...] uint8, i < j, that differ by less than ALIKE."""
    flat = pictures.reshape(len(pictures), -1).astype(np.float64)  # whole numbers: sums are exact on every machine
    squares = np.square(flat).sum(axis=1)
    away = squares[:, None] + squares - 2 * flat @ flat.T  # [N, N]
    return np.argwhere(np.triu(away < ALIKE * 255**2 * flat.shape[1], 1))


def _singular(word: str) -> str:
    word = re.sub(r"[’']s$", "", word)
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 5:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 3 else word
