"""The two layouts of aligned sentiment data: split -> arrays, and modality -> segment -> features."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.source import BadRecord
from mmjax.data.sources.plain_pickle import read_plain_pickle

HINTS = {
    "text": ("text", "glove", "vector", "bert", "word", "language"),
    "audio": ("audio", "acoustic", "covarep", "opensmile"),
    "vision": ("vision", "visual", "facet", "openface"),
    "score": ("regression_labels", "labels", "label", "opinion"),
}
"""Column -> what names of it contain, the likeliest first."""

SUFFIXES = (".csd", ".h5", ".hdf5")


def opened(path: str, split: str | None, names: Mapping[str, str]) -> Arrays | Sequences:
    """Opens a file in whichever layout it has.

    Raises:
      UserError: there is none, it is damaged, or it has neither layout.
    """
    try:
        return _opened(path, split, names)
    except (UserError, ImportError):
        raise
    except Exception as error:  # on a damaged file h5py fails in any way: KeyError, RuntimeError, TypeError, ...
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: is damaged, or no file of aligned features: {why}.") from None


def _opened(path: str, split: str | None, names: Mapping[str, str]) -> Arrays | Sequences:
    unknown = [name for name in names if name not in HINTS]
    if unknown:
        raise UserError(f"MosiSource.features has {listed(unknown)}; its keys are {listed(HINTS)}.")
    tree = _tree(pathlib.Path(path))
    if not isinstance(tree, Mapping) or not tree:
        raise UserError(f"{path}: expected splits or modalities by name, found {type(tree).__name__}.")
    leaves = {key: tree[key] for key in _keys(tree, path) if isinstance(tree[key], Mapping)}
    if any(isinstance(value, Mapping) for part in leaves.values() for value in _first(part)):
        if split is not None:
            raise UserError(
                f"{path} holds computational sequences, which have no split {split!r}: give its video ids as `videos`."
            )
        return Sequences(path, leaves, names)
    return Arrays(path, leaves, split, names)


def _keys(part: Mapping[Any, Any], where: str) -> list[str]:
    odd = [key for key in part if not isinstance(key, str)]
    if odd:
        raise UserError(f"{where}: expected names, as 'text', found the key {odd[0]!r}.")
    return list(part)


def _first(part: Mapping[str, Any]) -> Iterator[Any]:
    return (part[key] for key in list(part)[:1])


def _tree(path: pathlib.Path) -> Any:
    """Returns the groups of a file or a folder of files as mappings."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise UserError(f"{path}: there is no {listed(SUFFIXES)} file in this folder.")
        return {file.stem: _sequence(_hdf5(file)) for file in files}
    if not path.is_file():
        raise UserError(f"{path}: there is no such file or folder.")
    if path.suffix in (".pkl", ".pickle"):
        return read_plain_pickle(path)
    return {key: _sequence({key: value}) for key, value in _hdf5(path).items()}


def _hdf5(path: pathlib.Path) -> Any:
    import h5py  # comes with TensorFlow

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: is no HDF5 file, or a damaged one: {error}") from None


def _sequence(file: Mapping[str, Any]) -> Any:
    """Returns segment -> features of a computational sequence, whose file has them under its own name and 'data'."""
    top = file[next(iter(file))] if len(file) == 1 else file
    return top["data"] if isinstance(top, Mapping) and isinstance(top.get("data"), Mapping) else top


def _guess(column: str, found: Sequence[str], given: Mapping[str, str], where: str) -> str:
    """Returns the name of a column: the one that is given, else the first that a hint is, or is part of."""
    if column in given:
        if given[column] not in found:
            hint = nearest(given[column], found)
            raise UserError(f"{where} has no {given[column]!r} for {column!r}.{hint} It has {listed(found)}.")
        return given[column]
    for fits in (str.__eq__, str.__contains__):
        for hint in HINTS[column]:
            for name in found:
                if fits(name.lower(), hint):
                    return name
    raise UserError(f"{where} has nothing that looks like {column!r}; name it in `features`. It has {listed(found)}.")


class Arrays:
    """One split: arrays [N, ...] by name."""

    def __init__(self, path: str, tree: Mapping[str, Any], split: str | None, names: Mapping[str, str]):
        if split not in tree:
            what = "needs the name of a split" if split is None else f"has no split {split!r}"
            raise UserError(f"{path} {what}.{nearest(str(split), tree)} It has {listed(tree) or 'none'}.")
        part, where = tree[split], f"{path}:{split}"
        self.mapping = {column: _guess(column, _keys(part, where), names, where) for column in HINTS}
        if "raw_text" in part:
            self.mapping["caption"] = "raw_text"
        self._arrays = {column: part[name] for column, name in self.mapping.items()}
        ids = part.get("id")
        counts = {name: _rows(part[name], f"{where}: {name}") for name in self.mapping.values()}
        if ids is not None:
            counts["id"] = _rows(ids, f"{where}: id")
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise UserError(f"{where}: every array must have one row for each segment, but there are {found}.")
        self._ids = None if ids is None else [_joined(row, f"{where}: id {i}") for i, row in enumerate(ids[:])]
        self._count, self._where = next(iter(counts.values())), where

    def __len__(self) -> int:
        return self._count

    def id(self, index: int) -> str:
        """Returns the id of a segment, 'video$_$start_end' where it has parts (as MulT's), or its number."""
        return str(index) if self._ids is None else self._ids[index]

    def read(self, index: int, column: str) -> Any:
        """Returns row index of a column."""
        return _read(lambda: self._arrays[column][index], f"{self._where} {self.id(index)}: {column}")


def _rows(value: Any, where: str) -> int:
    """Returns the number of an array's rows."""
    try:
        return len(value)
    except TypeError:
        raise UserError(f"{where} is one {type(value).__name__}, expected an array of one row a segment.") from None


def _joined(row: Any, where: str) -> str:
    """Returns the id of a segment from its parts: the video, and where it starts and ends."""
    try:
        parts = np.asarray(row).reshape(-1).tolist()
    except ValueError:
        parts = []
    if not parts:
        raise UserError(f"{where} is {str(row)[:60]}, expected a name, or a list of its parts.")
    video, *rest = [part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in parts]
    return f"{video}$_${'_'.join(rest)}" if rest else video


class Sequences:
    """Segments that every modality has."""

    def __init__(self, path: str, tree: Mapping[str, Any], names: Mapping[str, str]):
        self.mapping = {column: _guess(column, list(tree), names, path) for column in HINTS}
        self._groups = {column: tree[name] for column, name in self.mapping.items()}
        found = [set(_keys(group, f"{path}: {self.mapping[column]}")) for column, group in self._groups.items()]
        self._ids, self._path = sorted(set.intersection(*found)), path

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, index: int) -> str:
        """Returns the id of a segment: 'video[3]'."""
        return self._ids[index]

    def read(self, index: int, column: str) -> Any:
        """Returns the features [T, D] of a segment."""
        where = f"{self._path} {self.id(index)}: {column}"
        return _read(lambda: np.asarray(self._groups[column][self._ids[index]]["features"]), where)


def _read(get: Callable[[], Any], where: str) -> Any:
    try:
        return get()
    except Exception as error:  # a damaged file may fail in any way
        raise BadRecord("broken_hdf5", f"{where} cannot be read: {type(error).__name__}: {error}") from error
