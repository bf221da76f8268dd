"""Fuzzing with hypothesis: the same check over a few hundred inputs in the default suite, and over 10,000 when slow."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
QUICK = settings(max_examples=300, derandomize=True, **_COMMON)
LONG = settings(max_examples=10_000, print_blob=True, **_COMMON)

amounts = pytest.mark.parametrize("amount", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"])
"""A test with the argument `amount` runs in the default suite and, longer and at random, among the slow ones."""


def fuzz(amount: settings, check: Callable[..., None], *inputs: st.SearchStrategy, examples: Iterable[tuple] = ()):
    """Runs check(*drawn) on each example, then on drawn inputs."""

    def once(*drawn: Any) -> None:  # given() wants plain arguments
        check(*drawn)

    test = given(st.tuples(*inputs))(lambda drawn: once(*drawn))
    for found in examples:
        test = example(found)(test)
    amount(test)()


odd_text = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(categories=["Cs", "Cc", "Co", "Mn"]), max_size=6),  # half surrogate pairs, nulls, ...
    st.sampled_from(
        ["../../etc/passwd", "/etc/passwd", "a\0b", "..", ".", "~", "C:\\x", "a" * 300, "\ud800", "//", "{}"]
    ),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), odd_text, st.sampled_from([2**31, -1, 10**30])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_text, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def spliced(draw: st.DrawFn, data: bytes, most: int = 4) -> bytes:
    """Returns data with a few stretches overwritten, inserted, doubled or cut out, or its end cut off."""
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 40))
        new = draw(st.binary(max_size=12))
        kind = draw(st.sampled_from(["overwrite", "insert", "double", "remove", "truncate"]))
        if kind == "overwrite":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        elif kind == "double":
            data = data[: at + size] + data[at:]
        else:
            data = data[:at] + (data[at + size :] if kind == "remove" else b"")
    return data


@st.composite
def mutated(draw: st.DrawFn, text: str, most: int = 3) -> str:
    """Returns JSON text with a few of its values replaced, removed, renamed or exchanged by others of it."""
    value = json.loads(text)
    for _ in range(draw(st.integers(1, most))):
        if not value:
            break
        parent, key = _place(draw, value)
        kind = draw(st.sampled_from(["replace", "remove", "rename", "swap"]))
        if kind == "replace":
            parent[key] = draw(json_values)
        elif kind == "swap":
            other, place = _place(draw, value)
            parent[key] = json.loads(json.dumps(other[place]))
        elif kind == "rename" and isinstance(parent, dict):
            parent[draw(odd_text)] = parent.pop(key)
        else:
            del parent[key]
    return json.dumps(value)


def _place(draw: st.DrawFn, value: Any) -> tuple[Any, Any]:
    """Returns (container, key or index) of something inside a JSON value, by a walk down from its root."""
    while True:
        key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        child = value[key]
        if not isinstance(child, dict | list) or not child or draw(st.integers(0, 2)) == 0:
            return value, key
        value = child
