"""Writes copies of a source as tar shards, a manifest or a folder, with a known share of damaged records.

Used by tests that train on damaged data: the returned counts are exact, kind by kind.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmjax.data.source import Source

KINDS = ("truncated_image", "empty_file", "empty_caption", "absurd_dimensions")
"""The kinds of damage, named as the pipeline counts them."""


@dataclasses.dataclass(frozen=True)
class Copy:
    """A copy that was written.

    Attributes:
      spec: what to give to --data.
      planted: kind -> number of damaged records.
      damaged: number of the record in the original -> its kind.
      size: records in all.
    """

    spec: str
    planted: Mapping[str, int]
    damaged: Mapping[int, str]
    size: int


def write_shards(
    source: Source,
    folder: Path,
    *,
    share: float = 0.0,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    per_shard: int = 1000,
) -> Copy:
    """Writes '00000.tar', ... as img2dataset does (key.png, key.txt, key.json)."""
    folder.mkdir(parents=True, exist_ok=True)
    damaged = plan(len(source), share, kinds, seed)
    shards = -(-len(source) // per_shard)
    records = _records(source, damaged)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number, image, captions in _take(records, min(per_shard, len(source) - shard * per_shard)):
                key, caption = f"{shard:05d}{number % per_shard:04d}", captions[0] if captions else ""
                _add(tar, f"{key}{_suffix(image)}", image)
                _add(tar, f"{key}.txt", caption.encode())
                _add(tar, f"{key}.json", json.dumps({"caption": caption, "key": key, "status": "success"}).encode())
    spec = folder / (f"{{00000..{shards - 1:05d}}}.tar" if shards > 1 else "00000.tar")
    return _copy(spec, damaged, len(source))


def write_manifest(
    source: Source,
    folder: Path,
    *,
    share: float = 0.0,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
    suffix: str = ".jsonl",
) -> Copy:
    """Writes 'captions.jsonl' (or .csv, .tsv) and the pictures beside it in 'images/'."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    damaged = plan(len(source), share, kinds, seed)
    path = folder / f"captions{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
        if suffix != ".jsonl":
            rows.writerow(["image", "caption"])
        for number, image, captions in _records(source, damaged):
            name = f"images/{number:06d}{_suffix(image)}"
            (folder / name).write_bytes(image)
            if suffix == ".jsonl":
                file.write(json.dumps({"image": name, "caption": captions}) + "\n")
            else:
                rows.writerow([name, captions[0] if captions else ""])
    return _copy(path, damaged, len(source))


def write_folder(
    source: Source, folder: Path, *, share: float = 0.0, kinds: Sequence[str] = KINDS, seed: int = 0
) -> Copy:
    """Writes '000017.png' and '000017.txt', one caption a line."""
    folder.mkdir(parents=True, exist_ok=True)
    damaged = plan(len(source), share, kinds, seed)
    for number, image, captions in _records(source, damaged):
        path = folder / f"{number:06d}{_suffix(image)}"
        path.write_bytes(image)
        path.with_suffix(".txt").write_text("\n".join(captions), encoding="utf-8")
    return _copy(folder, damaged, len(source))


def plan(size: int, share: float, kinds: Sequence[str] = KINDS, seed: int = 0) -> dict[int, str]:
    """Returns record -> kind of damage, round(share * size) of them, the kinds in turn."""
    chosen = np.random.default_rng(seed).permutation(size)[: round(share * size)]
    return {int(record): kinds[i % len(kinds)] for i, record in enumerate(chosen)}


def damage(kind: str, image: bytes, captions: list[str]) -> tuple[bytes, list[str]]:
    """Returns the record after damage of this kind."""
    match kind:
        case "truncated_image":
            return image[: len(image) // 2], captions
        case "empty_file":
            return b"", captions
        case "empty_caption":
            return image, []
        case "absurd_dimensions":
            return huge_png(), captions
    raise ValueError(f"{kind} is none of {KINDS}")


def huge_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """Returns a PNG of a few bytes, whole and well-formed up to its pixels, that declares width x height."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0"))]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*chunks, (b"IEND", b"")]
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _records(source: Source, damaged: Mapping[int, str]) -> Iterator[tuple[int, bytes, list[str]]]:
    """Yields (number, encoded image, captions) of every record, damaged as planned."""
    for number in range(len(source)):
        record = source.read(number)
        image, captions = record["image"], list(record["caption"])
        if number in damaged:
            image, captions = damage(damaged[number], image, captions)
        yield number, image, captions


def _copy(spec: Path, damaged: Mapping[int, str], size: int) -> Copy:
    return Copy(str(spec), dict(sorted(collections.Counter(damaged.values()).items())), damaged, size)


def _take(records: Iterator, count: int) -> Iterator:
    return (next(records) for _ in range(count))


def _suffix(image: bytes) -> str:
    return ".jpg" if image[:2] == b"\xff\xd8" else ".png"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
