"""What an encoded video says of itself before it is decoded: its container, and whether the file is whole."""

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO

from mmjax.data.image_header import PNG_SIGNATURE
from mmjax.data.matroska import read_at, segment_end
from mmjax.data.source import BadRecord

_MAGIC: tuple[tuple[str, str], ...] = (
    (r"GIF8[79]a", "gif"),
    (r"RIFF....WEBP", "webp"),
    (re.escape(PNG_SIGNATURE.decode("latin-1")), "png"),
    (r"....ftypavi[fs]", "avif"),
    (r"....(ftyp|moov|mdat|free|wide|skip|pnot)", "mp4"),
    (r"\x1a\x45\xdf\xa3", "matroska"),
    (r"RIFF....AVI ", "avi"),
    (r"\x00\x00\x01\xba", "mpeg"),
    (r"\x00\x00\x01\xb3", "mpegvideo"),
    (r"G.{187}G", "mpegts"),
    (r"FLV\x01", "flv"),
    (r"\x30\x26\xb2\x75", "asf"),
    (r"OggS", "ogg"),
)
"""(start of the file, format), the formats of films by FFmpeg's names."""

ANIMATIONS = ("gif", "webp", "png", "avif")
"""The formats that Pillow reads."""


def sniff(file: BinaryIO) -> str:
    """Returns the format of a video by its first bytes.

    Only these formats are opened, each by its own reader: FFmpeg left to guess would also read playlists, which name
    other files and addresses.

    Raises:
      BadRecord: 'empty_file' or 'unsupported_video'.
    """
    file.seek(0)
    head = file.read(192).decode("latin-1")
    if not head:
        raise BadRecord("empty_file", "the video has zero bytes.")
    for pattern, name in _MAGIC:
        if re.match(pattern, head, re.DOTALL):
            return name
    raise BadRecord("unsupported_video", f"the bytes start with {head[:8].encode('latin-1')!r}, which no format does.")


def check_whole(file: BinaryIO, name: str) -> None:
    """Raises BadRecord 'truncated_video' where the lengths that a file states reach past its end.

    MP4, Matroska and WebM, AVI, WebP, GIF and MPEG-TS say how long they are; MP4, Matroska and WebM of each part too,
    where what does not fit is 'corrupt_video'. Decoding shows the rest, and `image_header` checks a PNG's chunks.
    """
    size = file.seek(0, os.SEEK_END)
    end = {"mp4": _mp4, "matroska": segment_end, "avi": _riff, "webp": _riff, "gif": _gif, "mpegts": _ts}.get(name)
    stated = size if end is None else end(file, size)
    if stated > size:
        raise BadRecord("truncated_video", f"a {name} file of {size} bytes, which should have {stated} or more.")


def _mp4(file: BinaryIO, size: int) -> int:
    """Walks the boxes; without 'moov', which says where the frames are, the end is missing."""
    place, found = 0, set()
    while place < size:
        header = read_at(file, place, 16)
        if len(header) < 8:
            return place + 8
        length, kind = struct.unpack_from(">I4s", header)
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack_from(">Q", header, 8)
        elif length == 0:  # to the end of the file
            length = size - place
        if length < 8:
            raise BadRecord("corrupt_video", f"an MP4 whose box at byte {place} is {length} bytes long.")
        found.add(kind)
        place += length
    return place if b"moov" in found else max(place, size + 8)


def _riff(file: BinaryIO, size: int) -> int:
    (length,) = struct.unpack("<I", read_at(file, 4, 4))
    return 0 if length >= 0x7FFFFFFF else length + 8  # written to a pipe: the length was never filled in


def _gif(file: BinaryIO, size: int) -> int:
    tail = read_at(file, max(0, size - 64), 64).rstrip(b"\x00")
    return size if tail.endswith(b";") else size + 1


def _ts(file: BinaryIO, size: int) -> int:
    return -(-size // 188) * 188
