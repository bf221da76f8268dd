"""Frames of an encoded video by number, through FFmpeg (PyAV).

The packets are listed first, without decoding: this says how many frames there are, when each is shown and where
decoding may begin. Then only what is needed is decoded, from the last key frame before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from mmjax.core.optional import optional
from mmjax.data.clip import MAX_FRAMES
from mmjax.data.codec import MAX_PIXELS, check_size
from mmjax.data.image_header import Header
from mmjax.data.matroska import stated_seconds
from mmjax.data.source import BadRecord

MAX_SECONDS = 6 * 3600.0
"""A film that is longer, or says so, is a bad record."""

_WORTH_SEEKING = 16
"""Frames that a jump to a key frame must spare; a jump costs as much as decoding a few."""

_HELD = 3
"""Frames that may be missing at the end, where the last that came is shown on: some decoders drop a few."""

_DAMAGE = (ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError)
"""What PyAV raises beside FFmpeg's own errors where a file is damaged."""

_UNTIMED = ("avi", "mpegvideo")
"""Formats without times of their own; FFmpeg's guesses are wrong where frames are not stored in order."""

Numbered = tuple[int, Any]
"""(number of a frame, the frame of PyAV)."""


class Film:
    """The frames of an encoded video, in the order in which they are shown.

    Args:
      open_file: returns the file, open for reading; called again whenever frames are asked for, so none stays open.
      name: of its format, as FFmpeg calls it.
      max_pixels: a larger frame is refused.
      max_seconds: a longer film is refused.

    Raises:
      BadRecord: 'unsupported_video', 'truncated_video', 'corrupt_video', 'no_frames', 'absurd_dimensions' or
        'absurd_duration'.
    """

    def __init__(
        self,
        open_file: Callable[[], BinaryIO],
        name: str,
        max_pixels: int = MAX_PIXELS,
        max_seconds: float = MAX_SECONDS,
    ):
        self._av, self._open_file, self._name, self._max_pixels = _pyav(), open_file, name, max_pixels
        with self._opened() as (container, stream):
            context = stream.codec_context
            self._size = (context.height, context.width)
            check_size(Header("other", *self._size, False), max_pixels)
            packets = _listed(container, stream)
            rate, base = float(stream.average_rate or 0) or 25.0, float(stream.time_base or 0)
            stated = self._stated(container)
        untimed = name in _UNTIMED or base == 0 or any(pts is None for pts, _ in packets)
        self._pts = np.arange(len(packets)) if untimed else np.sort(np.array([pts for pts, _ in packets], np.int64))
        self._keys = np.searchsorted(self._pts, sorted(pts for pts, is_key in packets if is_key and not untimed))
        self._untimed, self._base = untimed, 1 / rate if untimed else base
        if not packets:
            raise BadRecord("no_frames", f"a {name} file whose video has no packets.")
        if self.times()[-1] > max_seconds:
            raise BadRecord("absurd_duration", f"{self.times()[-1]:g} seconds; max_seconds is {max_seconds:g}.")
        self._check_end(stated)

    def __len__(self) -> int:
        return len(self._pts)

    def times(self) -> np.ndarray:
        """Returns [N] float64 seconds from the first frame."""
        return (self._pts.astype(np.float64) - float(self._pts[0])) * self._base

    def frames(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields [H, W, 3] uint8 RGB for each of some rising, distinct frame numbers.

        A frame that the decoder does not give is the one that is still on show then.

        Raises:
          BadRecord: 'corrupt_video', or 'truncated_video' where the frames end before.
        """
        with self._opened() as (container, stream):
            decoded, last, ahead, may_seek = self._decoded(container, stream), None, None, True
            for number in numbers:
                if may_seek and self._key_before(number) - (last[0] if last else -1) > _WORTH_SEEKING:
                    decoded = self._decoded(container, stream, self._key_before(number))
                    last, ahead = _shown(decoded, number, None, None)
                    if last is None:  # landed too late: the file's index is wrong
                        decoded, ahead, may_seek = self._decoded(container, stream, 0), None, False
                last, ahead = _shown(decoded, number, last, ahead)
                if ahead is None and (last is None or number - last[0] > _HELD):
                    raise BadRecord(
                        "truncated_video", f"there is no frame {number}, of {len(self)} that it should have."
                    )
                yield self._pixels((last or ahead)[1])

    def _stated(self, container: Any) -> float:
        """Returns the seconds that a film lasts by its header, 0 where it has none: FFmpeg then guesses them."""
        if self._name == "matroska":
            with self._open_file() as file:
                return stated_seconds(file)
        return (container.duration or 0) / 1e6 if self._name == "flv" else 0.0

    def _check_end(self, stated: float) -> None:
        """Raises BadRecord 'truncated_video' where a file states a duration that is well beyond its last packet."""
        times, slack = self._pts * self._base, max(1.0, stated / 10)  # a start before or after 0 may be counted or not
        if len(times) < 2 or stated <= times[-1] - min(times[0], 0) + np.diff(times).max() + slack:
            return
        if stated > (end := self._end()) + slack:
            raise BadRecord("truncated_video", f"a {self._name} file of {stated:g} seconds that ends after {end:g}.")

    def _end(self) -> float:
        """Returns the seconds at which the last packet of any stream ends: sound may go on after the pictures."""
        with self._opened() as (container, _):
            packets = (packet for packet in container.demux() if packet.pts is not None)
            return max(float((packet.pts + (packet.duration or 0)) * packet.time_base) for packet in packets)

    def _key_before(self, number: int) -> int:
        """Returns the number of the last key frame up to a frame, -1 where there is none."""
        place = int(np.searchsorted(self._keys, number, "right")) - 1
        return -1 if place < 0 else int(self._keys[place])

    def _decoded(self, container: Any, stream: Any, start: int | None = None) -> Iterator[Numbered]:
        """Yields numbered frames, from the key frame `start` on where it is given."""
        if start is not None:
            container.seek(int(self._pts[start]), stream=stream)
        for count, frame in enumerate(container.decode(stream)):
            if self._untimed or frame.pts is None:
                yield count, frame
            else:
                yield int(np.searchsorted(self._pts, frame.pts, "right")) - 1, frame

    def _pixels(self, frame: Any) -> np.ndarray:
        """Returns a frame as [H, W, 3], scaled to the first one's size and turned as it should be seen."""
        if frame.is_corrupt:
            raise BadRecord("corrupt_video", f"the decoder says that the frame at {frame.time} s is damaged.")
        height, width = self._size
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Opens the container and its video stream; what FFmpeg raises becomes a BadRecord."""
        try:
            options = {"max_pixels": str(self._max_pixels)}  # a frame is decoded while FFmpeg looks at the streams
            with (
                self._open_file() as file,
                self._av.open(file, format=self._name, metadata_errors="replace", options=options) as container,
            ):
                yield container, self._stream(container)
        except (self._av.error.FFmpegError, *_DAMAGE) as error:
            raise BadRecord("corrupt_video", f"a {self._name} file: {type(error).__name__}: {error}.") from None

    def _stream(self, container: Any) -> Any:
        """Returns the first stream that is a film, not the picture on an album's cover."""
        cover = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not streams:
            raise BadRecord("no_frames", f"a {self._name} file without a video stream.")
        if streams[0].codec_context is None:
            raise BadRecord("unsupported_video", f"a {self._name} file whose codec FFmpeg does not know.")
        context = streams[0].codec_context
        context.thread_count = 1  # the input pipeline is parallel over clips already
        context.options = {"max_pixels": str(self._max_pixels)}  # the size may change on the way
        return streams[0]


def _listed(container: Any, stream: Any) -> list[tuple[int | None, bool]]:
    """Returns (time, whether it is a key frame) of every packet that is shown."""
    packets = []
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:
            packets.append((packet.pts, packet.is_keyframe))
        if len(packets) > MAX_FRAMES:
            raise BadRecord("absurd_duration", f"more than {MAX_FRAMES} frames.")
    return packets


def _shown(
    decoded: Iterator[Numbered], number: int, last: Numbered | None, ahead: Numbered | None
) -> tuple[Numbered | None, Numbered | None]:
    """Decodes until frame `number` is known; returns (the last one up to it, the one behind that if it came)."""
    while last is None or last[0] < number:
        ahead = ahead or next(decoded, None)
        if ahead is None or ahead[0] > number:
            break
        last, ahead = ahead, None
    return last, ahead


def _pyav() -> ModuleType:
    return optional("av", "Videos are read through PyAV", "video")
