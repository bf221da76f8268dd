"""What a person has in a notebook -> Stream: strings, Pillow images, uint8 arrays, paths, bytes.

Nothing here knows a modality. A value goes through the run's own transform as the column of a record would; a transform
that can also take decoded pictures (it has `from_pil`) is given pictures of every kind.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.data.source import BadRecord
from mmjax.data.transform import Transform

_ONE = (str, bytes, os.PathLike, Image.Image)


def batches(values: Any, size: int) -> Iterator[list[Any]]:
    """Yields lists of at most size values; one string, picture or path alone is a list of one.

    Raises:
      UserError: values can be neither, or there are none.
    """
    if isinstance(values, _ONE) or (isinstance(values, np.ndarray) and values.ndim in (2, 3)):
        values = [values]
    if not isinstance(values, Iterable):
        raise UserError(f"encode: got a {type(values).__name__}; expected strings, pictures, uint8 arrays or paths.")
    part: list[Any] = []
    found = False
    for value in values:
        found = True
        part.append(value)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
    if not found:
        raise UserError("encode: there is nothing to encode; the list is empty.")


def to_stream(transform: Transform, values: Sequence[Any], rows: int, first: int = 0) -> Stream:
    """Returns the stream of values as evaluation preprocesses them, filled up to `rows` rows that are masked out.

    Args:
      transform: of the modality.
      values: at most `rows` of them; None is a missing one.
      rows: B.
      first: number of values[0], for messages.

    Raises:
      UserError: a value that cannot be used; names its number.
    """

    def one(number: int, value: Any) -> Any:
        try:
            return None if value is None else prepare(transform, value)
        except (BadRecord, UserError, OSError, TypeError, ValueError) as error:
            raise UserError(f"encode: input {number} cannot be used: {error}") from error

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        prepared = list(pool.map(one, range(first, first + len(values)), values))
    return transform.collate(prepared + [None] * (rows - len(values)))


def prepare(transform: Transform, value: Any) -> Any:
    """Returns one value as `transform.prepare` returns it without augmentation.

    Raises:
      BadRecord: it is damaged.
      UserError: it is of no kind that this transform takes.
      OSError: it is a path that cannot be read.
    """
    from_pil = getattr(transform, "from_pil", None)
    if from_pil is None:
        return transform.prepare({transform.column: value}, None)
    if isinstance(value, str | os.PathLike):
        value = epath.Path(value).read_bytes()
    if isinstance(value, bytes):
        return transform.prepare({transform.column: value}, None)
    return from_pil(_picture(value))


@functools.singledispatch
def _picture(value: Any) -> Image.Image:
    """Returns a Pillow image.

    Raises:
      UserError: value is no picture.
    """
    if not hasattr(value, "__array__"):
        raise UserError(
            f"a {type(value).__name__} is no picture; expected a Pillow image, a uint8 array [height, width, 3], a "
            "path or encoded bytes."
        )
    pixels = np.asarray(value)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in (1, 3, 4) or not pixels.size:
        raise UserError(
            f"an array of shape {pixels.shape} and type {pixels.dtype} is no picture; expected uint8 [height, width, "
            "3] (or [height, width], or with 4 channels) with values from 0 to 255."
        )
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and channels == 1 else pixels)


@_picture.register
def _(value: Image.Image) -> Image.Image:
    return value
