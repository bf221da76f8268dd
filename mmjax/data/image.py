"""Pictures: encoded bytes -> uint8 pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.types import Stream
from mmjax.data.codec import MAX_PIXELS, check_size, decode, pil_to_rgb
from mmjax.data.crops import INTERPOLATIONS, fit, random_box, reduce_box, reduction, resize
from mmjax.data.image_header import Header, read_header
from mmjax.data.source import Record
from mmjax.data.transform import ArraySpec, get_column, spec_of, stack_rows


@dataclasses.dataclass(frozen=True)
class ImageTransform:
    """Encoded picture -> uint8 pixels: random resized crop in training, the published recipe in evaluation.

    Attributes:
      column: of the record, encoded bytes (JPEG, PNG, WebP, ...).
      size: height and width of the result.
      scale: least and greatest share of the area that a training crop keeps.
      ratio: least and greatest width / height of a training crop.
      flip: mirror half of the training pictures; off, because captions say left and right.
      interpolation: 'bicubic', 'bilinear' or 'area'.
      antialias: widen the filter when shrinking.
      fit: how evaluation reaches size: 'center' (CLIP) or 'squash' (SigLIP).
      max_pixels: a picture with more is a bad record.
      mean: of red, green and blue in [0, 1]; only recorded, the encoder normalises on the device.
      std: as mean.
    """

    column: str = "image"
    size: int = 224
    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    interpolation: str = "bicubic"
    antialias: bool = True
    fit: str = "center"
    max_pixels: int = MAX_PIXELS
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        for key, value, valid in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("fit", self.fit, ("center", "squash")),
        ):
            if value not in valid:
                raise UserError(
                    f"ImageTransform.{key}={value!r} must be one of {listed(valid)}.{nearest(value, valid)}"
                )
        if self.size < 1 or not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(
                f"ImageTransform: size={self.size} must be positive, scale={self.scale} two rising shares of the area "
                f"in (0, 1], ratio={self.ratio} two rising positive numbers."
            )

    def out_spec(self) -> dict[str, ArraySpec]:
        """Returns the spec of values [size, size, 3] uint8 and mask [1] bool."""
        return {"values": ((self.size, self.size, 3), np.uint8), "mask": ((1,), np.bool_)}

    def prepare(self, record: Record, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the picture's [size, size, 3] uint8 pixels."""
        data = get_column(record, self.column)
        if not isinstance(data, bytes):
            raise UserError(f"the column {self.column!r} must hold encoded image bytes, not {type(data).__name__}.")
        header = read_header(data)
        check_size(header, self.max_pixels)
        if rng is None:
            return self.fit_pixels(decode(data, header))
        crop = self._random_crop(data, header, rng)
        crop = resize(crop, (self.size, self.size), self.interpolation, antialias=self.antialias, exact=False)
        return crop[:, ::-1] if self.flip and rng.random() < 0.5 else crop

    def _random_crop(self, data: bytes, header: Header, rng: np.random.Generator) -> np.ndarray:
        """Returns a random crop; a JPEG is decoded by no more than what its resize lets through.

        With antialias that is a fraction of a large picture's size; without, a draft of what is shrunk, whose error is
        far below that of the aliasing.
        """
        if header.format == "jpeg" and header.direct and header.orientation == 1:
            box = random_box(header.height, header.width, self.scale, self.ratio, rng)
            factor = reduction(box, self.size) if self.antialias else 1
            shrinks = min(box[2] - box[0], box[3] - box[1]) >= self.size
            pixels = decode(data, header, factor, draft=shrinks and not self.antialias)
        else:
            pixels, factor = decode(data, header), 1
            box = random_box(*pixels.shape[:2], self.scale, self.ratio, rng)
        top, left, bottom, right = reduce_box(box, factor)
        return pixels[top:bottom, left:right]

    def fit_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Brings [H, W, 3] uint8 RGB pixels to [size, size, 3] as evaluation does."""
        return fit(pixels, self.size, self.fit, self.interpolation, self.antialias)

    def from_pil(self, image: Any) -> np.ndarray:
        """Returns the evaluation pixels [size, size, 3] uint8 of a Pillow image of any mode, turned by its EXIF."""
        return self.fit_pixels(pil_to_rgb(image))

    def collate(self, prepared: Sequence[np.ndarray | None]) -> Stream:
        """Returns values [B, size, size, 3] uint8 and mask [B, 1]."""
        mask = np.array([[pixels is not None] for pixels in prepared], np.bool_)
        return Stream(stack_rows(prepared, self.out_spec()), mask)

    def spec(self) -> dict[str, Any]:
        """Returns the settings as JSON-able values."""
        return spec_of(self)
