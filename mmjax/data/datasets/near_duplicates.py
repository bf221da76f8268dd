"""Names of one thing in one group, so that a split by groups has no picture in training that is almost one in test."""

from __future__ import annotations

import re
from collections.abc import Sequence

COMMON = frozenset(
    """a and arrow big black blue brown button closed dark down face first full green hand heavy high in last large left
    light low mark music musical new no old on oncoming open orange person purple quarter red right sign small symbol up
    upwards white yellow""".split()  # noqa: SIM905 (47 words in a list are 47 lines)
)
"""Words that two things may share without being one: colours, sizes, directions, and what half of the emoji are."""

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


def groups(names: Sequence[str]) -> list[str]:
    """Returns the group of each name: names with a key in common are in one, and so on from name to name.

    A group is called by the first of its names, in the order of the alphabet. 'crying cat' is in one group with 'cat
    face' and 'crying face'; so is whatever shares a word with one of these.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for name in names:
        first, *others = keys(name)
        for other in others:
            parent[root(other)] = root(first)
    roots = [root(keys(name)[0]) for name in names]
    called: dict[str, str] = {}
    for name, group in sorted(zip(names, roots, strict=True)):
        called.setdefault(group, name)
    return [called[group] for group in roots]


def _singular(word: str) -> str:
    word = re.sub(r"[’']s$", "", word)
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 5:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 3 else word
