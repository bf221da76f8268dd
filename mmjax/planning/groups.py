"""Which devices a collective joins, from any of the forms that a compiled program writes it in."""

from __future__ import annotations

import re

import numpy as np

_NUMBERS = r"[\d,]+"
_IOTA = re.compile(rf"replica_groups=\[({_NUMBERS})\]<=\[({_NUMBERS})\](?:T\(({_NUMBERS})\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:,? *device_ids=\((.*?\)?)\))? *\{([^}]*)\}")
_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")
_LISTS = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}")


def groups_of(attributes: str, partitions: int) -> list[list[int]]:
    """Returns the groups of partitions that one collective joins; of a permutation, its pairs.

    Partition p is the p-th device of the mesh, row by row.

    Args:
      attributes: of the instruction. The forms are iota, '[groups,size]<=[4,2]T(1,0)'; axes of a mesh,
        "mesh['a'=2,'b'=4] {'b'}", of which "'b':(2)2" is a part; and lists, '{{0,1},{2,3}}'.
      partitions: all that the program runs on, one group where none is named.
    """
    if found := _IOTA.search(attributes):
        groups, sizes, order = found.groups()
        return _iota(_ints(sizes), order).reshape(_ints(groups)).tolist()
    if found := _MESH.search(attributes):
        return _by_axes(*found.groups())
    if found := _LISTS.search(attributes):
        return [_ints(numbers) for numbers in re.findall(r"\{([\d, ]*)\}", found.group(1))]
    return [list(range(partitions))]


def span(groups: list[list[int]], slices: list[int]) -> bool:
    """Says whether a group joins several slices; slices: of each partition."""
    return any(len({slices[partition] for partition in group}) > 1 for group in groups)


def _ints(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number.strip()]


def _iota(sizes: list[int], order: str | None) -> np.ndarray:
    """Returns 0, 1, 2, ... in that shape, its axes then in that order."""
    numbers = np.arange(np.prod(sizes)).reshape(sizes)
    return numbers.transpose(_ints(order)) if order else numbers


def _by_axes(mesh: str, devices: str | None, axes: str) -> list[list[int]]:
    """Returns the groups along some axes of a mesh, or along parts of axes: 'x':(2)4 is the 4 that 2 come before."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    shape, names = [], []  # every axis as its parts
    wanted = {name: (int(before or 1), int(size or sizes[name])) for name, before, size in _AXIS.findall(axes)}
    for name, whole in sizes.items():
        before, size = wanted.get(name, (1, 1))
        shape += [before, size, whole // (before * size)]
        names += [None, name, None]
    inside = [names.index(name) for name in wanted]
    outside = [axis for axis in range(len(names)) if axis not in inside]
    numbers = _devices(devices, int(np.prod(shape))).reshape(shape).transpose(outside + inside)
    return numbers.reshape(-1, int(np.prod([size for _, size in wanted.values()]))).tolist()


def _devices(text: str | None, count: int) -> np.ndarray:
    """Returns the partitions of a mesh in order: '[4,2]T(1,0)', '0,2,1,3', or None where they are 0, 1, 2, ..."""
    if text is None:
        return np.arange(count)
    if found := re.match(rf"\[({_NUMBERS})\](?:T\(({_NUMBERS})\))?", text):
        return _iota(_ints(found.group(1)), found.group(2)).reshape(-1)
    return np.array(_ints(text))
