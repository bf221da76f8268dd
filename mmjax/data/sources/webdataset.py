"""WebDataset tar shards, as img2dataset writes them, read at random through an offset index."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mmjax.core.errors import listed
from mmjax.data.source import BadRecord, Record
from mmjax.data.sources import columns as columns_lib
from mmjax.data.sources import files, tar_cache, tar_index

_TEXTS = ("txt", "text", "caption")
_LOOK = 16  # samples from which the place of the captions is guessed
_GAP = 1 << 16  # members nearer than this are fetched in one read


@dataclasses.dataclass(eq=False)
class WebDatasetSource:
    """The samples of tar shards; members of one key ('0001.jpg', '0001.txt', '0001.json') are one sample.

    The index takes one pass over the shards' headers, the first time and whenever a shard's size or time of change
    differs, shared by the processes of a job; in memory it is about 45 bytes a sample. A shard that breaks off gives
    its whole samples and one bad record ('truncated_shard') for the lost rest. A shard that is changed or replaced
    while it is in use gives bad records ('changed_file', or 'truncated_shard' where it became shorter) instead of other
    samples: a local one at once, a remote one after at most files.LOOK_AGAIN seconds of reading it. A shard that is
    gone stops the run.

    Attributes:
      pattern: 'shard-{00000..00099}.tar', 'shards/*.tar' or one file; local or fsspec (gs://, s3://).
      columns: column -> extension ('txt'), several of them, the first present wins ('jpg;png'), or a value of a JSON
        member ('json.caption'). None guesses 'image' and 'caption'.
      cache_dir: where the index is kept; None is $XDG_CACHE_HOME/mmjax/tar-index (~/.cache). Give a shared folder, and
        all hosts index together, each its part.

    Raises:
      UserError: no shard fits, one is missing or compressed, or a column's extension is in no shard.
    """

    how: ClassVar[str] = (
        "A sample of a tar shard has a picture (.jpg, .png, .webp, ...) and its caption in a member .txt or in the "
        "'caption' of a member .json, all of the same name."
    )

    pattern: str
    columns: Mapping[str, str] | None = None
    cache_dir: str | None = None

    def __post_init__(self):
        self.name = self.pattern
        self._shards = files.expand(self.pattern)
        indexes = tar_cache.load_indexes(self._shards, self.cache_dir)
        self._starts = np.cumsum([0] + [len(index) for index in indexes])  # [shards + 1]
        self._cut = {i: index.cut for i, index in enumerate(indexes) if index.cut >= 0}
        self._keys = [index.keys for index in indexes]
        signatures = {shard: index.signature for shard, index in zip(self._shards, indexes, strict=True)}
        self._reader = files.RangeReader(signatures)
        counts = _counts(indexes)
        self.found = listed(f".{e} ({n:,})" for e, n in counts.most_common()) or "no members"
        if self._cut:
            cut = listed((os.path.basename(self._shards[i]) for i in self._cut), 5)
            self.found += f"; {len(self._cut)} of {len(self._shards)} shards break off before their end: {cut}"
        self.mapping = self._guessed(indexes, counts) if self.columns is None else dict(self.columns)
        for column, extensions in self.mapping.items():
            names = [_extension(e) for e in extensions.split(";")]
            if not any(name in counts for name in names):
                columns_lib.chosen({column: extensions}, counts, self.name)
        self._where = {column: _where(spec, indexes) for column, spec in self.mapping.items()}
        self.columns = tuple(self.mapping)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe."""
        shard = self._shard(index)
        if shard in self._cut and index + 1 == self._starts[shard + 1]:
            raise BadRecord("truncated_shard", f"{self._shards[shard]} breaks off at byte {self._cut[shard]:,}.")
        ranges = {}
        for column, (offsets, sizes) in self._where.items():
            if sizes[index] < 0:
                member = f".{self.mapping[column]}"
                raise BadRecord(f"missing_{column}", f"{self.label(index)} has no member {member}.")
            ranges[column] = (int(offsets[index]), int(sizes[index]))
        data = _read_ranges(self._reader, self._shards[shard], ranges)
        return {column: _value(column, spec, data[column], self.label(index)) for column, spec in self.mapping.items()}

    def label(self, index: int) -> str:
        """Returns 'data/shard-00001.tar:000010042', the shard and the key."""
        shard = self._shard(index)
        key = self._keys[shard][index - self._starts[shard]].decode(errors="replace")
        return f"{self._shards[shard]}:{key or '(cut)'}"

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _guessed(self, indexes: list[tar_index.TarIndex], counts: Mapping[str, int]) -> dict[str, str]:
        mapping = {}
        if images := [e for e in columns_lib.IMAGE_SUFFIXES if e in counts]:
            mapping["image"] = ";".join(images)
        if caption := self._caption(indexes, ";".join(e for e in _TEXTS if e in counts)):
            mapping["caption"] = caption
        return mapping

    def _caption(self, indexes: list[tar_index.TarIndex], texts: str) -> str:
        """Returns where most of a few samples have their captions: `texts`, a value of their JSON, or '' for nowhere.

        The samples lie at even distances among those that have either, so that one stray member decides nothing.
        """
        has_text, (offsets, sizes) = _where(texts, indexes)[1] >= 0, _where("json", indexes)
        found = np.flatnonzero(has_text | (sizes > 0))
        looked = found[np.linspace(0, len(found) - 1, min(len(found), _LOOK)).astype(np.int64)]
        with_json = looked[sizes[looked] > 0]
        if texts and has_text[looked].sum() >= len(with_json):
            return texts
        keys = [key for i in with_json for key in self._json_keys(int(i), int(offsets[i]), int(sizes[i]))]
        key = columns_lib.guess(keys, "caption")
        return texts if key is None else f"json.{key}"

    def _json_keys(self, index: int, offset: int, size: int) -> list[str]:
        """Returns the keys of a sample's JSON member whose values may be captions."""
        try:
            value = json.loads(self._reader.read(self._shards[self._shard(index)], offset, size))
        except (ValueError, RecursionError):
            return []
        items = value.items() if isinstance(value, dict) else ()
        return [key for key, v in items if isinstance(v, str) or (isinstance(v, list) and v)]


def _counts(indexes: list[tar_index.TarIndex]) -> collections.Counter[str]:
    """Returns extension -> how many samples have it."""
    counts: collections.Counter[str] = collections.Counter()
    for index in indexes:
        counts.update(dict(zip(index.extensions, (index.sizes >= 0).sum(0).tolist(), strict=True)))
    return counts


def _where(spec: str, indexes: list[tar_index.TarIndex]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (offsets, sizes) [n] of the first extension in `spec` that each sample has; size -1 where it has none."""
    parts = []
    for index in indexes:
        offsets, sizes = np.zeros(len(index), np.int64), np.full(len(index), -1, np.int64)
        for extension in map(_extension, spec.split(";")):
            if extension in index.extensions:
                column = index.extensions.index(extension)
                take = (sizes < 0) & (index.sizes[:, column] >= 0)
                offsets[take], sizes[take] = index.offsets[take, column], index.sizes[take, column]
        parts.append((offsets, sizes))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _read_ranges(reader: files.RangeReader, path: str, ranges: dict[str, tuple[int, int]]) -> dict[str, bytes]:
    """Returns the bytes of every range; ranges that lie close together cost one read."""
    if not ranges:
        return {}
    start = min(offset for offset, _ in ranges.values())
    stop = max(offset + size for offset, size in ranges.values())
    if stop - start > sum(size for _, size in ranges.values()) + _GAP:
        return {c: data for c, r in ranges.items() for data in _read_ranges(reader, path, {c: r}).values()}
    data = reader.read(path, start, stop - start)
    if len(data) < stop - start:
        raise BadRecord("truncated_shard", f"{path} has become shorter since it was indexed.")
    return {column: data[offset - start : offset - start + size] for column, (offset, size) in ranges.items()}


def _value(column: str, spec: str, data: bytes, where: str) -> Any:
    """Returns what a member means: captions of text, one value of a JSON member, or its bytes."""
    if spec.startswith("json."):
        try:
            value = json.loads(data)[spec.removeprefix("json.")]
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise BadRecord(f"missing_{column}", f"The JSON of {where} gives no {spec!r}: {e!r}.") from e
        return columns_lib.captions(value, where) if column.startswith("caption") else value
    if _extension(spec.split(";")[0]) in _TEXTS:
        return columns_lib.captions(data, where)
    return columns_lib.image(data, where)


def _extension(spec: str) -> str:
    """Returns 'json' of 'json.caption', and an extension as it is."""
    return "json" if spec.startswith("json.") else spec
