"""A clip as frames by number: pixels in memory, separate pictures, or an animation that Pillow reads."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image

from mmjax.core.errors import UserError
from mmjax.data.codec import check_size, decode, pil_to_rgb
from mmjax.data.image_header import PIL_ERRORS, read_header
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

    def __init__(self, pixels: np.ndarray):
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise UserError(f"a video must be uint8 [T, H, W, 3], not {pixels.dtype} {list(pixels.shape)}.")
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
            try:
                with open(picture, "rb") as file:
                    picture = file.read()
            except FileNotFoundError:
                raise BadRecord("missing_video", f"{picture} does not exist.") from None
        header = read_header(picture)
        check_size(header, self._max_pixels)
        return decode(picture, header)


PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Endings of the files that are frames, of those in a folder."""


def by_number(name: str) -> list[tuple[int, str]]:
    """Returns the key that sorts 'frame10' behind 'frame9'."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


class Animation:
    """GIF, animated WebP, APNG and AVIF through Pillow."""

    def __init__(self, file: BinaryIO, max_pixels: int):
        file.seek(0)
        self._data = file.read()
        header = read_header(self._data)  # a PNG's checksums too
        check_size(header, max_pixels)
        with _pillow_errors(), self._opened() as image:
            self._skip = 1 if image.info.get("default_image") else 0  # an APNG's picture for those that cannot play it
            self._length = getattr(image, "n_frames", 1) - self._skip
        if self._length > MAX_FRAMES:
            raise BadRecord("absurd_duration", f"an animation of {self._length} frames.")

    def _opened(self) -> Image.Image:
        return Image.open(io.BytesIO(self._data))

    def __len__(self) -> int:
        return self._length

    def times(self) -> np.ndarray:
        """Returns [N] float64 seconds by the durations of the frames before; all 0.1 s where none has one."""
        durations = []
        with _pillow_errors(), self._opened() as image:
            for number in range(self._length):
                image.seek(number + self._skip)
                image.load()
                durations.append(float(image.info.get("duration", 0)) / 1000)
        durations = durations if any(durations) else [0.1] * self._length
        return np.cumsum([0.0, *durations[:-1]])

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames; Pillow decodes those between them too, as each is drawn over the last."""
        with _pillow_errors(), self._opened() as image:
            for number in numbers:
                image.seek(number + self._skip)
                yield pil_to_rgb(image)


class _pillow_errors:
    """Turns what Pillow raises for a damaged file into a BadRecord."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PIL_ERRORS):
            kind = "truncated_video" if isinstance(error, EOFError) or "truncated" in str(error) else "corrupt_video"
            raise BadRecord(kind, f"{type(error).__name__}: {error}.") from None
