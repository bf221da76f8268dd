"""The frames of an MP3, walked from header to header: whether they are all there, and how many.

An MP3 has no length. Encoders write one into a first, silent frame (Xing); without it libsndfile guesses from the
first frame's bit rate, and reads half of a file whose bit rate varies. So a file without gets one here.
"""

from __future__ import annotations

import dataclasses
import struct

from mmjax.data.source import BadRecord

_KBITS = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)
_TRAILERS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")
"""What tags after the last frame start with."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """Of one frame.

    Attributes:
      length: in bytes, header included.
      side: bytes between the header and the data.
    """

    length: int
    side: int


def read_frame(data: bytes, place: int) -> Frame | None:
    """Returns the layer III frame whose header is at `place`; None where there is none, or of free bit rate."""
    if place + 4 > len(data) or data[place] != 0xFF or data[place + 1] & 0xE6 != 0xE2:
        return None
    second, third, fourth = data[place + 1 : place + 4]
    version, kbits, rate = second >> 3 & 3, third >> 4, third >> 2 & 3  # version 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    if version == 1 or kbits in (0, 15) or rate == 3:
        return None
    generation, mono = (1 if version == 3 else 2), fourth >> 6 == 3
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    length = (144_000 // generation) * _KBITS[generation][kbits] // hertz + (third >> 1 & 1)
    side = {(1, False): 32, (1, True): 17, (2, False): 17, (2, True): 9}[generation, mono]
    return Frame(length, side)


def skip_id3(data: bytes) -> int:
    """Returns where the bytes after the ID3v2 tags at the start begin."""
    place = 0
    while data[place : place + 3] == b"ID3" and len(data) >= place + 10:
        a, b, c, d = data[place + 6 : place + 10]
        footer = 10 if data[place + 5] & 0x10 else 0
        place += 10 + footer + (a << 21 | b << 14 | c << 7 | d)
    return place


def is_frame(data: bytes) -> bool:
    """Returns whether the bytes start with an MP3 frame, and another one follows it where there are more bytes."""
    frame = read_frame(data, 0)
    return frame is not None and (frame.length + 4 > len(data) or read_frame(data, frame.length) is not None)


def check_mp3(data: bytes) -> bytes:
    """Returns an MP3 that starts with a frame and says its length.

    Raises:
      BadRecord: 'truncated_audio' or 'corrupt_audio'.
    """
    frames, said = _count(data), _said(data)
    if said is None:
        return _length_frame(data, frames) + data
    if frames < said:
        raise BadRecord("truncated_audio", f"an MP3 of {frames} frames where its header says {said}.")
    return data


def _count(data: bytes) -> int:
    """Returns the number of frames."""
    place = count = 0
    while place < len(data):
        frame = read_frame(data, place)
        if frame is None:
            rest = data[place : place + 16]
            if rest.startswith(_TRAILERS) or not data[place:].strip(b"\x00"):
                return count
            kind = "truncated_audio" if len(rest) < 4 else "corrupt_audio"
            raise BadRecord(kind, f"no MP3 frame where one should start, at byte {place} of {len(data)}.")
        place, count = place + frame.length, count + 1
    if place > len(data):
        raise BadRecord("truncated_audio", f"an MP3 that ends after {len(data)} bytes, inside a frame.")
    return count


def _said(data: bytes) -> int | None:
    """Returns the number of frames that a Xing frame at the start says; None where there is no such frame."""
    place = 4 + read_frame(data, 0).side
    tag, flags, frames = struct.unpack_from(">4sII", data.ljust(place + 12, b"\0"), place)
    return frames if tag in (b"Xing", b"Info") and flags & 1 else None


def _length_frame(data: bytes, frames: int) -> bytes:
    """Returns a silent first frame in the manner of the one at the start of data that says how many follow."""
    header = bytes([data[0], data[1] | 1, 0x90 | data[2] & 0x0C, data[3]])  # no checksum, 128 or 80 kbit/s, no padding
    frame = read_frame(header, 0)
    return (header + bytes(frame.side) + struct.pack(">4sII", b"Xing", 1, frames)).ljust(frame.length, b"\0")
