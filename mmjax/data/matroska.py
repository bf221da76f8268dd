"""Whether a Matroska or WebM file is whole, by the sizes of its elements, and how long it says that it lasts.

FFmpeg reads on behind damage and says nothing of the frames that are gone with it.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from mmjax.data.source import BadRecord

_EBML, _SEGMENT, _CLUSTER, _GROUP = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0
_SEEK, _INFO, _TRACKS, _TRACK, _CUES, _TAGS = 0x114D9B74, 0x1549A966, 0x1654AE6B, 0xAE, 0x1C53BB6B, 0x1254C367
_CHAPTERS, _ATTACHMENTS = 0x1043A770, 0x1941A469
_SCALE, _DURATION = 0x2AD7B1, 0x4489
_BLOCKS = (0xA3, 0xA1)  # a frame: by itself, or in a group with what else is known of it
_ANYWHERE = frozenset({0xEC, 0xBF})  # void, checksum

_PARTS: dict[int, frozenset[int] | None] = {
    _SEGMENT: _ANYWHERE | {_SEEK, _INFO, _TRACKS, _CLUSTER, _CUES, _TAGS, _CHAPTERS, _ATTACHMENTS},
    _CLUSTER: _ANYWHERE | {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, _GROUP, 0xAF},
    _GROUP: _ANYWHERE | {0xA1, 0xA2, 0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8},
    **dict.fromkeys((_SEEK, _INFO, _TRACKS, _TRACK, _CUES, _TAGS, _CHAPTERS, _ATTACHMENTS)),
}
"""Element of Matroska -> the elements that it may hold, by their ids; None: any."""

_NEXT = {_CLUSTER: (_PARTS[_SEGMENT] - _ANYWHERE) | {_EBML}, _SEGMENT: frozenset({_EBML})}
"""Element that need not say how long it is -> what comes behind it."""


def segment_end(file: BinaryIO, size: int) -> int:
    """Checks the segment that holds everything, if it is there whole.

    Args:
      file: open for reading.
      size: of the file in bytes.

    Returns:
      Where the segment ends; `size` for one that does not say, as it was written to a pipe.

    Raises:
      BadRecord: 'corrupt_video' or 'truncated_video'.
    """
    kind, start, length = _element(file, 0)
    while kind != _SEGMENT:
        if kind not in (_EBML, *_ANYWHERE) or length is None:
            raise BadRecord("corrupt_video", f"a Matroska file without a segment before byte {start}.")
        kind, start, length = _element(file, start + length)
    end = size if length is None else start + length
    if end <= size:
        _walk(file, _SEGMENT, start, end, length is None)
    return end


def stated_seconds(file: BinaryIO) -> float:
    """Returns the duration that stands before the frames of a file whose segment is whole, 0 where there is none."""
    size, kind, place = file.seek(0, os.SEEK_END), _EBML, 0
    scale, duration = 1_000_000, 0.0  # of a tick in nanoseconds; in ticks
    while place < size and kind != _CLUSTER:
        kind, start, length = _element(file, place)
        if kind == _SCALE:
            scale = int.from_bytes(read_at(file, start, length), "big")
        elif kind == _DURATION and length in (4, 8):
            (duration,) = struct.unpack(">f" if length == 4 else ">d", read_at(file, start, length))
        place = start if kind in (_SEGMENT, _INFO) else start + (length or 0)
    return duration * scale / 1e9


def _walk(file: BinaryIO, parent: int, place: int, end: int, endless: bool) -> int:
    """Checks that an element holds whole elements up to its end, each where it may be.

    Args:
      file: open for reading.
      parent: the element's id.
      place: where its content starts.
      end: where it ends at the latest.
      endless: whether it does not say where it ends; it does before what cannot be part of it.

    Returns:
      Where it ends.

    Raises:
      BadRecord: 'corrupt_video', or 'truncated_video' where the rest is missing.
    """
    while place < end:
        kind, start, length = _element(file, place)
        if endless and kind in _NEXT[parent]:
            return place
        if kind not in (_PARTS[parent] or (kind,)) or (length is None and kind not in _NEXT):
            raise BadRecord("corrupt_video", f"a Matroska file with what is no element of its place at byte {place}.")
        if length is not None and start + length > end:
            missing = "truncated_video" if endless else "corrupt_video"
            raise BadRecord(missing, f"a Matroska file whose element at byte {place} reaches past the one around it.")
        if kind in _BLOCKS and read_at(file, start, 1) == b"\x00":
            raise BadRecord("corrupt_video", f"a Matroska file with a frame of no track at byte {start}.")
        place = end if length is None else start + length
        if kind in _PARTS:
            place = _walk(file, kind, start, place, length is None)
    return place


def read_at(file: BinaryIO, place: int, size: int) -> bytes:
    """Returns at most size bytes of a file from `place` on."""
    file.seek(place)
    return file.read(size)


def _element(file: BinaryIO, place: int) -> tuple[int, int, int | None]:
    """Returns (the id of the element at `place`, where its content starts, its length, None where it is unknown)."""
    data = read_at(file, place, 12)
    middle = _number_end(data, 0, place)
    end = _number_end(data, middle, place)
    unknown = (1 << 7 * (end - middle)) - 1
    length = int.from_bytes(data[middle:end], "big") & unknown
    return int.from_bytes(data[:middle], "big"), place + end, None if length == unknown else length


def _number_end(data: bytes, start: int, place: int) -> int:
    """Returns where the number at data[start], whose first bits say how long it is, ends."""
    if data[start : start + 1] == b"\x00":
        raise BadRecord("corrupt_video", f"a Matroska file without an element where one should be, at byte {place}.")
    end = start + 9 - data[start].bit_length() if start < len(data) else start + 1
    if end > len(data):
        raise BadRecord("truncated_video", f"a Matroska file that ends inside an element's header, at byte {place}.")
    return end
