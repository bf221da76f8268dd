"""What an encoded image says of itself before it is decoded: format, size, orientation, and whether it is whole."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib

import simplejpeg
from PIL import Image

from mmjax.data.source import BadRecord

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 0x0112
PIL_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, LookupError, TypeError, AttributeError, RuntimeError),
    Image.DecompressionBombError,
)
"""What Pillow raises where a file is damaged; which of them depends on the format and on the place."""

_KNOWN = (b"RIFF", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")


@dataclasses.dataclass(frozen=True)
class Header:
    """Of one encoded image.

    Attributes:
      format: 'jpeg', 'png' or 'other'.
      height: pixels as stored, before the EXIF orientation.
      width: pixels as stored, before the EXIF orientation.
      direct: OpenCV or libjpeg-turbo decodes it straight to 8-bit RGB: no alpha, no CMYK.
      orientation: EXIF orientation 1 to 8 that is still to be applied to what is stored; 1 for 'other'.
    """

    format: str
    height: int
    width: int
    direct: bool
    orientation: int = 1


def read_header(data: bytes) -> Header:
    """Returns the header of encoded image bytes.

    Raises:
      BadRecord: 'empty_file', 'not_an_image', 'truncated_image' or 'corrupt_image'.
    """
    if not data:
        raise BadRecord("empty_file", "the image has zero bytes.")
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg(data)
    if data[:8] == PNG_SIGNATURE:
        return _png(data)
    return _other(data)


def _jpeg(data: bytes) -> Header:
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise BadRecord("truncated_image", f"a JPEG whose header cannot be read: {error}.") from None
    has_exif = data.find(b"Exif\x00\x00", 0, _jpeg_pixels(data)) >= 0
    return Header("jpeg", height, width, space in ("YCbCr", "Gray", "RGB"), _orientation(data) if has_exif else 1)


def _jpeg_pixels(data: bytes) -> int:
    """Returns the byte where a JPEG's segments end and its pixels begin; 65536 where the segments cannot be followed.

    Metadata is looked for before that byte alone: looking through the pixels costs more than the rest of the header.
    """
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xDA:
            return place
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 65536


def _orientation(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return orientation_of(image)
    except PIL_ERRORS:  # among them a size that Pillow refuses: whether it is absurd is for `codec.check_size` to say
        return 1


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF orientation 1 to 8 of an opened picture; 1 where it has none, or none that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except PIL_ERRORS:  # a broken EXIF block is no reason to refuse the picture
        return 1
    return value if value in range(1, 9) else 1


def _png(data: bytes) -> Header:
    """Walks the chunks: OpenCV decodes what it can of a damaged PNG, so damage is found here, by length and CRC."""
    place, seen, found = 8, b"", set()
    view = memoryview(data)
    while seen != b"IEND":
        if place + 12 > len(data):
            raise BadRecord("truncated_image", f"a PNG that ends after {len(data)} bytes without its IEND chunk.")
        length, seen = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise BadRecord("truncated_image", f"a PNG that ends after {len(data)} bytes, inside a chunk.")
        if zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise BadRecord("corrupt_image", f"a PNG whose chunk at byte {place} does not match its checksum.")
        found.add(seen)
        place = end
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise BadRecord("corrupt_image", "a PNG that does not start with its IHDR chunk.")
    width, height, _, color = struct.unpack_from(">IIBB", data, 16)
    opaque = b"tRNS" not in found and color not in (4, 6)
    return Header("png", height, width, opaque, _orientation(data) if b"eXIf" in found else 1)


def _other(data: bytes) -> Header:
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            return Header("other", height, width, False)
    except Image.DecompressionBombError as error:
        raise BadRecord("absurd_dimensions", f"{error}") from None
    except PIL_ERRORS as error:
        kind = "corrupt_image" if data.startswith(_KNOWN) else "not_an_image"
        raise BadRecord(kind, f"{len(data)} bytes that start with {data[:8]!r}: {type(error).__name__}.") from None
