"""What an encoded recording says of itself before it is decoded: its format, and whether it is whole.

libsndfile decodes what it can of a damaged file and says nothing. So WAV and AIFF are measured by their chunks, Ogg by
the checksums of its pages, MP3 by walking its frames; FLAC's decoder checks its own checksums. What has no checksum
cannot be checked by anyone: the samples of a WAV, and the inside of an MP3 frame.
"""

from __future__ import annotations

import struct
import zlib

from mmjax.data.mp3_frames import check_mp3, is_frame, skip_id3
from mmjax.data.source import BadRecord

_UNKNOWN = 0x7FFF0000
"""From this size on a WAV was written to a pipe, where the size is not known."""

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_audio(data: bytes) -> bytes:
    """Returns the bytes to decode: `data`, or for an MP3 of unstated length, `data` with its length stated.

    Raises:
      BadRecord: 'empty_file', 'unsupported_audio', 'truncated_audio' or 'corrupt_audio'.
    """
    if not data:
        raise BadRecord("empty_file", "the recording has zero bytes.")
    body = data[skip_id3(data) :]
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        _check_chunks(data, "<")
    elif data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        _check_chunks(data, ">")
    elif data[:4] == b"OggS":
        _check_ogg(data)
    elif body[:4] == b"fLaC":
        return body
    elif is_frame(body):
        return check_mp3(body)
    else:
        raise BadRecord(
            "unsupported_audio",
            f"{len(data)} bytes that start with {data[:8]!r}; WAV, AIFF, FLAC, Ogg (Vorbis, Opus) and MP3 can be read.",
        )
    return data


def _check_chunks(data: bytes, order: str) -> None:
    """Raises BadRecord where the samples of a WAV or AIFF end before their chunk does."""
    place, long_size = 12, None
    while place + 8 <= len(data):
        name, size = struct.unpack_from(f"{order}4sI", data, place)
        if name == b"ds64" and place + 24 <= len(data):
            long_size = struct.unpack_from("<Q", data, place + 16)[0]
        if name in (b"data", b"SSND"):
            size = long_size if long_size is not None and size == 0xFFFFFFFF else size
            there = len(data) - place - 8
            if there < size and (long_size is not None or size < _UNKNOWN):
                raise BadRecord("truncated_audio", f"{there} bytes of samples where the header says {size}.")
            return
        place += 8 + size + size % 2
    raise BadRecord("truncated_audio", f"a file that ends after {len(data)} bytes, before its samples.")


def _check_ogg(data: bytes) -> None:
    """Raises BadRecord where a page is missing, cut or does not match its checksum."""
    place, numbers, ended = 0, {}, {}
    while place < len(data):
        end = _page_end(data, place)
        kind, serial, number, checksum = struct.unpack_from("<5xB8xIII", data, place)
        if _ogg_crc(data[place : place + 22] + bytes(4) + data[place + 26 : end]) != checksum:
            raise BadRecord("corrupt_audio", f"an Ogg page at byte {place} that does not match its checksum.")
        if numbers.setdefault(serial, number) != number:
            raise BadRecord("corrupt_audio", f"an Ogg page is missing before byte {place}.")
        numbers[serial], ended[serial] = number + 1, bool(kind & 4)
        place = end
    if not all(ended.values()):
        raise BadRecord("truncated_audio", f"an Ogg stream that ends after {len(data)} bytes without its last page.")


def _page_end(data: bytes, place: int) -> int:
    """Returns where the Ogg page at `place` ends."""
    if data[place : place + 4] != b"OggS"[: len(data) - place]:
        raise BadRecord("corrupt_audio", f"no Ogg page where one should start, at byte {place}.")
    if place + 27 > len(data) or place + 27 + data[place + 26] > len(data):
        raise BadRecord("truncated_audio", f"an Ogg stream that ends after {len(data)} bytes, inside a page.")
    segments = data[place + 26]
    end = place + 27 + segments + sum(data[place + 27 : place + 27 + segments])
    if end > len(data):
        raise BadRecord("truncated_audio", f"an Ogg stream that ends after {len(data)} bytes, inside a page.")
    return end


def _ogg_crc(page: bytes) -> int:
    """Returns Ogg's CRC-32: zlib's polynomial, but bits from the left, and neither start nor end inverted."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
