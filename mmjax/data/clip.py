"""A clip as frames by number: pixels in memory, or separate pictures."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.codec import check_size, decode
from mmjax.data.image_header import Header, read_header
from mmjax.data.source import BadRecord

MAX_FRAMES = 2**21
"""Frames of one clip: ten hours at 60 a second."""


class Clip(Protocol):
    """Frames by number."""

    def __len__(self) -> int: ...

    def times(self) -> np.ndarray | None:
        """Returns [N] float64 seconds from the first frame at which each is shown; None where nothing says."""

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields [H, W, 3] uint8 RGB for each of some rising, distinct frame numbers; all are of one size.

        Raises:
          BadRecord: a frame cannot be had.
        """


class ArrayClip:
    """Pixels in memory, uint8 [T, H, W, 3]."""

    def __init__(self, pixels: np.ndarray, max_pixels: int):
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise UserError(f"a video must be uint8 [T, H, W, 3], not {pixels.dtype} {list(pixels.shape)}.")
        check_size(Header("other", *pixels.shape[1:3], False), max_pixels)
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def times(self) -> None:
        """Returns None: nothing says."""

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames."""
        return iter(self._pixels[list(numbers)])


class PictureClip:
    """Pictures one by one: encoded bytes, or paths that are read when they are asked for."""

    def __init__(self, pictures: Sequence[bytes | str], max_pixels: int):
        self._pictures, self._max_pixels = pictures, max_pixels

    @classmethod
    def from_folder(cls, path: str, max_pixels: int) -> PictureClip:
        """Returns the pictures of a folder in the order of the numbers in their names."""
        names = [name for name in os.listdir(path) if os.path.splitext(name)[1].lower() in PICTURES]
        return cls([os.path.join(path, name) for name in sorted(names, key=by_number)], max_pixels)

    def __len__(self) -> int:
        return len(self._pictures)

    def times(self) -> None:
        """Returns None: nothing says."""

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames, each decoded."""
        first = None
        for number in numbers:
            frame = self._decoded(self._pictures[number])
            first = frame.shape if first is None else first
            if frame.shape != first:
                raise BadRecord("mixed_sizes", f"frame {number} is {frame.shape[:2]} pixels, the first {first[:2]}.")
            yield frame

    def _decoded(self, picture: bytes | str) -> np.ndarray:
        if isinstance(picture, str):
            with opened(picture) as file:
                picture = file.read()
        header = read_header(picture)
        check_size(header, self._max_pixels)
        return decode(picture, header)


PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Endings of the files that are frames, of those in a folder."""


def by_number(name: str) -> list[tuple[int, str]]:
    """Returns the key that sorts 'frame10' behind 'frame9'."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def opened(path: str) -> BinaryIO:
    """Returns a file, open for reading.

    Raises:
      BadRecord: 'missing_video' where there is none, or no file can have this path.
      OSError: the storage fails.
    """
    from mmjax.data.sources import files  # TensorFlow comes with the sources

    try:
        return files.opened(path)
    except (OSError, ValueError, UserError):
        return io.BytesIO(files.read(path, "missing_video"))  # which says what is wrong with the path
