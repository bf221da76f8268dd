"""Encoded image bytes -> uint8 RGB, by codecs that release the GIL; damage is always found, never drawn as grey.

JPEG goes through libjpeg-turbo (simplejpeg, strict), PNG through OpenCV, everything else (WebP, GIF, TIFF, BMP, CMYK
JPEG, ...) through Pillow. Alpha is composited on white, grey and palette images become RGB, 16 bits become 8, and the
EXIF orientation is applied. benchmarks/image_decode.py compares this with TensorFlow's own ops.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from mmjax.data.image_header import PIL_ERRORS, Header, orientation_of, read_header
from mmjax.data.source import BadRecord

MAX_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs, 256 MiB of RGB."""

cv2.setNumThreads(0)  # the input pipeline is parallel over images already


def check_size(header: Header, max_pixels: int = MAX_PIXELS, max_aspect: float = 200.0) -> None:
    """Raises BadRecord 'absurd_dimensions' for an empty, a huge or a hair-thin image."""
    height, width = header.height, header.width
    if min(height, width) < 1 or height * width > max_pixels:
        raise BadRecord("absurd_dimensions", f"{width} x {height} pixels; max_pixels is {max_pixels}.")
    if max(height, width) > max_aspect * min(height, width):
        raise BadRecord("absurd_dimensions", f"{width} x {height} pixels; sides may differ {max_aspect:g}-fold.")


def decode(data: bytes, header: Header | None = None, reduce: int = 1, draft: bool = False) -> np.ndarray:
    """Decodes an image and turns it as its EXIF orientation says.

    Args:
      data: encoded bytes.
      header: what `read_header` returned for them.
      reduce: 1, 2, 4 or 8; a JPEG is decoded at ceil(size / reduce), where libjpeg-turbo skips work; other formats
        ignore it.
      draft: a JPEG is decoded 8 % faster by libjpeg-turbo's quick transform and unsmoothed colour, which differs at
        full size by a few grey levels; other formats ignore it.

    Returns:
      [H, W, 3] uint8 RGB.

    Raises:
      BadRecord: the bytes are truncated, corrupt or no image.
    """
    header = header or read_header(data)
    if header.format == "jpeg" and header.direct:
        return orient(_decode_jpeg(data, header, reduce, draft), header.orientation)
    if header.format == "png":
        return orient(_decode_png(data, header), header.orientation)
    return _decode_other(data)


def _decode_jpeg(data: bytes, header: Header, reduce: int, draft: bool) -> np.ndarray:
    size = {} if reduce == 1 else {"min_height": -(-header.height // reduce), "min_width": -(-header.width // reduce)}
    try:
        return simplejpeg.decode_jpeg(data, fastdct=draft, fastupsample=draft, **size)
    except ValueError as error:
        kind = "truncated_image" if "Premature end" in str(error) else "corrupt_image"
        raise BadRecord(kind, f"a JPEG: {error}.") from None


def _decode_png(data: bytes, header: Header) -> np.ndarray:
    flag = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION if header.direct else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise BadRecord("corrupt_image", f"a PNG: {error.err}.") from None
    if image is None:
        raise BadRecord("corrupt_image", "a PNG whose pixels cannot be decompressed.")
    if header.direct:
        return image
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 3 and image.shape[2] == 4:
        return on_white(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def _decode_other(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return pil_to_rgb(image)
    except PIL_ERRORS as error:
        kind = "truncated_image" if "truncated" in str(error) else "corrupt_image"
        raise BadRecord(kind, f"{type(error).__name__}: {error}.") from None


def pil_to_rgb(image: Image.Image) -> np.ndarray:
    """Returns a Pillow image of any mode as [H, W, 3] uint8 RGB, turned by its EXIF, transparent pixels on white."""
    image.load()  # a TIFF is turned by this, and has no orientation any more
    return orient(_pixels(image), orientation_of(image))


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return on_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Composites [H, W, 4] uint8 RGBA on white and returns [H, W, 3] uint8, rounded to nearest."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    weight = alpha.astype(np.uint16)
    mixed = rgba[..., :3] * weight + 255 * (255 - weight) + 127
    return (mixed // 255).astype(np.uint8)


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns image [H, W, 3] as an EXIF orientation (1 to 8) says it should be seen."""
    if orientation == 1:
        return image
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
