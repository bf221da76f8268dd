"""Tables that say which tensor of a published model is which parameter of ours, read in both directions."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import einops
import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.trees import matches_any


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor of theirs, or one of each layer.

    Attributes:
      theirs: its name; '{layer}' stands for the number of the layer.
      ours: path of the parameter; '{blocks}' stands for what a stack of layers is called: 'blocks' where it is scanned
        (parameters [depth, ...]), 'block_0', 'block_1', ... where it is not. Both are found.
      axes: how theirs becomes ours, in the words of einops: 'o i -> i o' is a transpose, '(h d) i -> i h d' splits the
        heads too. '': as it is.
    """

    theirs: str
    ours: str
    axes: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """All tensors of a family of models.

    Attributes:
      rules: of those that are taken.
      left_out: patterns of names that are not.
      renamed: (pattern, replacement) of names, made before all else: prefixes, and what names used to be.
    """

    rules: Sequence[Rule]
    left_out: Sequence[str] = ()
    renamed: Sequence[tuple[str, str]] = ()


@dataclasses.dataclass(frozen=True)
class Pair:
    """A tensor of theirs and a parameter of ours, or one layer of it; shape is ours, without the axis of layers."""

    theirs: str
    ours: str
    axes: str
    shape: tuple[int, ...]
    layer: int | None = None

    @property
    def theirs_shape(self) -> tuple[int, ...]:
        """The shape that theirs must have."""
        if not self.axes:
            return self.shape
        left, sizes = self.axes.partition("->")[0], self._sizes()
        groups = re.findall(r"\([^)]*\)|\w+", left)
        return tuple(math.prod(sizes[name] for name in group.strip("()").split()) for group in groups)

    def _sizes(self) -> dict[str, int]:
        return dict(zip(self.axes.partition("->")[2].split(), self.shape, strict=True))

    def to_ours(self, tensor: np.ndarray) -> np.ndarray:
        """Returns a tensor of theirs in our shape."""
        return einops.rearrange(tensor, self.axes, **self._sizes()) if self.axes else tensor

    def to_theirs(self, values: np.ndarray) -> np.ndarray:
        """Returns a parameter of ours, of all layers where they are stacked, in their shape."""
        values = values if self.layer is None else values[self.layer]
        left, _, right = self.axes.partition("->")
        return np.ascontiguousarray(einops.rearrange(values, f"{right} -> {left}") if self.axes else values)


def to_ours(table: Table, tensors: Mapping[str, np.ndarray], leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns path -> values of all our parameters, from their tensors.

    Args:
      table: of the family.
      tensors: name -> tensor of theirs.
      leaves: path -> array or shape of ours; the values are of its shape and dtype.

    Raises:
      UserError: lists each tensor that is neither used nor left out, each parameter that is not filled, and each pair
        whose shapes differ.
    """
    tensors = {_renamed(table, name): tensor for name, tensor in tensors.items()}
    found = _pairs(table, leaves)
    used = {pair.theirs for pair in found}
    extra = [name for name in tensors if name not in used and not matches_any(name, table.left_out)]
    problems = _unfilled(found, leaves)
    problems += [f"missing: {pair.theirs}, for {_ours(pair)}" for pair in found if pair.theirs not in tensors]
    problems += [f"extra: {name} {tensors[name].shape}, which no parameter takes" for name in extra]
    problems += [
        f"mis-shaped: {pair.theirs} is {tensors[pair.theirs].shape}, but {_ours(pair)} of shape {pair.shape} takes "
        f"{pair.theirs_shape}"
        for pair in found
        if pair.theirs in tensors and tensors[pair.theirs].shape != pair.theirs_shape
    ]
    _raise(problems)
    filled = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in leaves.items()}
    for pair in found:
        filled[pair.ours][... if pair.layer is None else pair.layer] = pair.to_ours(tensors[pair.theirs])
    return filled


def to_theirs(table: Table, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns name -> tensor of theirs, from path -> array of ours.

    Raises:
      UserError: a parameter that no rule names.
    """
    found = _pairs(table, leaves)
    _raise(_unfilled(found, leaves))
    return {pair.theirs: pair.to_theirs(np.asarray(leaves[pair.ours])) for pair in found}


def _pairs(table: Table, leaves: Mapping[str, Any]) -> list[Pair]:
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    return [pair for rule in table.rules for pair in _pairs_of(rule, shapes)]


def _pairs_of(rule: Rule, shapes: Mapping[str, tuple[int, ...]]) -> list[Pair]:
    """Returns a pair for each tensor that the rule names; none where the model has no such parameter."""
    if "{layer}" not in rule.theirs:
        return [Pair(rule.theirs, rule.ours, rule.axes, shapes[rule.ours])] if rule.ours in shapes else []
    stacked = rule.ours.format(blocks="blocks")
    if stacked in shapes:
        depth, *shape = shapes[stacked]
        return [Pair(rule.theirs.format(layer=n), stacked, rule.axes, tuple(shape), n) for n in range(depth)]
    each = (rule.ours.format(blocks=f"block_{n}") for n in itertools.count())
    there = itertools.takewhile(shapes.__contains__, each)
    return [Pair(rule.theirs.format(layer=n), path, rule.axes, shapes[path]) for n, path in enumerate(there)]


def _renamed(table: Table, name: str) -> str:
    for pattern, replacement in table.renamed:
        name = re.sub(pattern, replacement, name)
    return name


def _ours(pair: Pair) -> str:
    return pair.ours if pair.layer is None else f"{pair.ours} (layer {pair.layer})"


def _unfilled(found: Sequence[Pair], leaves: Mapping[str, Any]) -> list[str]:
    filled = {pair.ours for pair in found}
    none = [(path, tuple(leaf.shape)) for path, leaf in leaves.items() if path not in filled]
    return [f"unfilled: {path} {shape}, which no tensor of the file is" for path, shape in none]


def _raise(problems: Sequence[str]) -> None:
    if problems:
        more = [f"... ({len(problems) - 12} more)"] if len(problems) > 12 else []
        raise UserError("\n  ".join([f"{len(problems)} weights do not fit:", *problems[:12], *more]))
