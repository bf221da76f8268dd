"""Where to crop a picture and how to resize the crop: random for training, the published recipes for evaluation."""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]
"""top, left, bottom, right in pixels; bottom and right are one past the end."""

_FAST = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
_EXACT = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}
INTERPOLATIONS = tuple(_FAST)


def random_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Box:
    """Returns a random crop: Inception's, as torchvision's RandomResizedCrop draws it.

    Args:
      height: of the picture.
      width: of the picture.
      scale: least and greatest share of the picture's area.
      ratio: least and greatest width / height of the crop, drawn log-uniformly.
      rng: gives ten tries of four numbers, always as many.

    References:
      Szegedy et al., Going deeper with convolutions, 2014, section 6.
    """
    tries = rng.random((10, 4))  # area, ratio, top, left
    lowest, highest = math.log(ratio[0]), math.log(ratio[1])
    for area, aspect, top, left in tries.tolist():
        target = height * width * (scale[0] + area * (scale[1] - scale[0]))
        aspect = math.exp(lowest + aspect * (highest - lowest))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
            return y, x, y + h, x + w
    return central_box(height, width, ratio)


def central_box(height: int, width: int, ratio: tuple[float, float]) -> Box:
    """Returns the largest central crop whose width / height is within ratio."""
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    y, x = (height - h) // 2, (width - w) // 2
    return y, x, y + h, x + w


def reduction(box: Box, size: int) -> int:
    """Returns 8, 4, 2 or 1: the greatest by which a JPEG may be decoded smaller, the crop still 1.5 times size.

    With less to spare, the result moves visibly away from that of a full decode (benchmarks/image_decode.py).
    """
    least = min(box[2] - box[0], box[3] - box[1])
    return next((factor for factor in (8, 4, 2) if 2 * least >= 3 * factor * size), 1)


def reduce_box(box: Box, factor: int) -> Box:
    """Returns box in the pixels of an image decoded at 1 / factor, its edges moved to whole pixels there."""
    return tuple(edge // factor for edge in box)


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str, *, antialias: bool, exact: bool) -> np.ndarray:
    """Resizes an image.

    Args:
      image: [H, W, 3] uint8.
      size: height and width of the result.
      interpolation: 'bicubic', 'bilinear' or 'area'.
      antialias: widen the filter when shrinking.
      exact: Pillow's filter, as the published checkpoints were evaluated with; otherwise `shrink`.

    Returns:
      [*size, 3] uint8.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return np.ascontiguousarray(image)
    grows, shrinks = size[0] >= height and size[1] >= width, size[0] <= height and size[1] <= width
    if not antialias or (not exact and grows):
        return cv2.resize(image, size[::-1], interpolation=_FAST[interpolation])
    if not exact and shrinks:
        return shrink(image, size, interpolation)
    return np.asarray(Image.fromarray(image).resize(size[::-1], _EXACT[interpolation]))


def shrink(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Shrinks an image without aliasing, four times as fast as Pillow and closer to its bicubic than its bilinear is.

    Up to 2.5-fold, four samples a pixel are interpolated and averaged (cubic samples up to twofold, whose ringing the
    average takes away); beyond that, or for 'area', whole areas are averaged. OpenCV does each of these in SIMD.

    Args:
      image: [H, W, 3] uint8, not smaller than size.
      size: height and width of the result.
      interpolation: 'bicubic', 'bilinear' or 'area'.

    Returns:
      [*size, 3] uint8.
    """
    ratio = max(image.shape[0] / size[0], image.shape[1] / size[1])
    if interpolation == "area" or ratio > 2.5:
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    sampling = cv2.INTER_CUBIC if interpolation == "bicubic" and ratio <= 2 else cv2.INTER_LINEAR
    image = cv2.resize(image, (2 * size[1], 2 * size[0]), interpolation=sampling)
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def fit(image: np.ndarray, size: int, how: str, interpolation: str, antialias: bool) -> np.ndarray:
    """Brings a picture to [size, size, 3] without chance.

    Args:
      image: [H, W, 3] uint8.
      size: of the result.
      how: 'center' shrinks the shorter side to size and crops the centre (CLIP); 'squash' ignores the aspect (SigLIP).
      interpolation: 'bicubic', 'bilinear' or 'area'.
      antialias: widen the filter when shrinking.
    """
    if how == "squash":
        return resize(image, (size, size), interpolation, antialias=antialias, exact=True)
    height, width = image.shape[:2]
    short = min(height, width)
    new = (size * height // short, size * width // short)
    image = resize(image, new, interpolation, antialias=antialias, exact=True)
    y, x = round((new[0] - size) / 2), round((new[1] - size) / 2)
    return np.ascontiguousarray(image[y : y + size, x : x + size])
