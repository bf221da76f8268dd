"""Animations as frames by number: GIF, animated WebP, APNG and AVIF, which Pillow decodes."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image

from mmjax.data.clip import MAX_FRAMES
from mmjax.data.codec import check_size, pil_to_rgb
from mmjax.data.image_header import PIL_ERRORS, PNG_SIGNATURE, read_header
from mmjax.data.source import BadRecord


class Animation:
    """The frames of an animation.

    Args:
      file: open for reading; read at once.
      max_pixels: larger frames are refused.
      max_seconds: a longer animation is refused.

    Raises:
      BadRecord: 'truncated_video', 'corrupt_video', 'absurd_dimensions', 'absurd_duration', or a kind of
        `image_header`.
    """

    def __init__(self, file: BinaryIO, max_pixels: int, max_seconds: float):
        file.seek(0)
        self._data = file.read()
        header = read_header(self._data)  # a PNG's checksums too
        check_size(header, max_pixels)
        with _pillow_errors(), self._opened() as image:
            self._skip = 1 if image.info.get("default_image") else 0  # an APNG's picture for those that cannot play it
            self._length = getattr(image, "n_frames", 1) - self._skip
        if self._length > MAX_FRAMES:
            raise BadRecord("absurd_duration", f"an animation of {self._length} frames.")
        self._times = self._read_times()
        if self._length and self._times[-1] > max_seconds:
            raise BadRecord("absurd_duration", f"{self._times[-1]:g} seconds; max_seconds is {max_seconds:g}.")

    def _opened(self) -> Image.Image:
        return Image.open(io.BytesIO(self._data))

    def __len__(self) -> int:
        return self._length

    def times(self) -> np.ndarray:
        """Returns [N] float64 seconds by the durations of the frames before; all 0.1 s where none has one."""
        return self._times

    def _read_times(self) -> np.ndarray:
        with _pillow_errors():
            durations = _durations(self._data)
            if len(durations) != self._length:  # AVIF, one picture, or damage
                durations = self._decoded_durations()
        durations = durations if any(durations) else [0.1] * self._length
        return np.cumsum([0.0, *durations[:-1]])[: self._length]

    def _decoded_durations(self) -> list[float]:
        """Returns the seconds of each frame; Pillow must decode them all to tell."""
        durations = []
        with self._opened() as image:
            for number in range(self._length if self._length > 1 else 0):
                image.seek(number + self._skip)
                image.load()
                durations.append(float(image.info.get("duration", 0)) / 1000)
        return durations

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames; Pillow decodes those between them too, as each is drawn over the last."""
        with _pillow_errors(), self._opened() as image:
            for number in numbers:
                image.seek(number + self._skip)
                yield pil_to_rgb(image)


def _durations(data: bytes) -> list[float]:
    """Returns the seconds of each frame as the headers of an encoded animation say, [] where they are not read."""
    for start, read in ((b"GIF8", _gif), (b"RIFF", _webp), (PNG_SIGNATURE, _apng)):
        if data.startswith(start):
            return read(data)
    return []


def _webp(data: bytes) -> list[float]:
    place, found = 12, []
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        if kind == b"ANMF":
            found.append(int.from_bytes(data[place + 20 : place + 23], "little") / 1000)
        place += 8 + size + size % 2
    return found


def _apng(data: bytes) -> list[float]:
    place, found = len(PNG_SIGNATURE), []
    while place + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"fcTL":
            amount, parts = struct.unpack_from(">HH", data, place + 28)
            found.append(amount / (parts or 100))
        place += 12 + size
    return found


def _gif(data: bytes) -> list[float]:
    """Returns the seconds of each frame of a GIF, from the control block before it; 0 where there is none."""
    place, delay, found = 13 + _palette(data[10]), 0, []
    while place < len(data) and data[place] != 0x3B:  # the trailer
        if data[place] == 0x2C:  # a frame
            found.append(delay / 100)
            place, delay = _behind(data, place + 11 + _palette(data[place + 9])), 0
        elif data[place] == 0x21:  # an extension
            if data[place + 1] == 0xF9:
                (delay,) = struct.unpack_from("<H", data, place + 4)
            place = _behind(data, place + 2)
        else:
            place += 1
    return found


def _palette(flags: int) -> int:
    """Returns the bytes of the palette that the flags of a GIF or of one of its frames announce."""
    return 6 << (flags & 7) if flags & 0x80 else 0


def _behind(data: bytes, place: int) -> int:
    """Returns where the blocks of a GIF that start at `place`, each after a byte with its length, have ended."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1


class _pillow_errors:
    """Turns what Pillow raises for a damaged file into a BadRecord."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PIL_ERRORS):
            kind = "truncated_video" if isinstance(error, EOFError) or "truncated" in str(error) else "corrupt_video"
            raise BadRecord(kind, f"{type(error).__name__}: {error}.") from None
