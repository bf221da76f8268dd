"""Sources in memory for the tests of this folder."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from mmjax.core.types import Batch
from mmjax.data.source import BadRecord


def picture(number: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Returns [height, width, 3] uint8, smooth and different for each number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """Returns encoded bytes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@dataclasses.dataclass
class Pictures:
    """A source of `size` small PNGs with two captions each; `change` may damage a record."""

    size: int
    name: str = "pictures"
    change: Callable[[int, dict[str, Any]], dict[str, Any]] = lambda _, record: record
    columns: Sequence[str] = ("image", "caption")

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> dict[str, Any]:
        record = {"image": encode(picture(index)), "caption": [f"Picture {index}", f"Bild  Nummer {index}"]}
        return self.change(index, record)

    def label(self, index: int) -> str:
        return f"{self.name}/{index}"


@dataclasses.dataclass
class Numbers:
    """A source whose record i holds the number i; those in `bad` cannot be used."""

    size: int
    name: str = "numbers"
    bad: frozenset[int] = frozenset()
    columns: Sequence[str] = ("number",)

    def __len__(self) -> int:
        return self.size

    def read(self, index: int) -> dict[str, Any]:
        if index in self.bad:
            raise BadRecord("odd" if index % 2 else "even", f"{index} is bad.")
        return {"number": index}

    def label(self, index: int) -> str:
        return f"{self.name}/{index}"


def digest(batch: Batch) -> str:
    """Returns the SHA-256 of every array of a batch, their paths, shapes and dtypes."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()
