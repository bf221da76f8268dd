"""What a record's column may hold as a video -> frames by number: FFmpeg for films, Pillow for animations."""

from __future__ import annotations

import functools
import io
import os
from typing import Any

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.animation import Animation
from mmjax.data.clip import ArrayClip, Clip, PictureClip, opened
from mmjax.data.codec import MAX_PIXELS
from mmjax.data.film import MAX_SECONDS, Film
from mmjax.data.source import BadRecord
from mmjax.data.video_header import ANIMATIONS, check_whole, sniff


def open_clip(value: Any, max_pixels: int = MAX_PIXELS, max_seconds: float = MAX_SECONDS) -> Clip:
    """Returns the frames of a record's column.

    Args:
      value: encoded bytes; the path of a file or of a folder of pictures; a list of encoded pictures (bytes or paths);
        or uint8 [T, H, W, 3].
      max_pixels: a frame with more is refused.
      max_seconds: a longer clip is refused.

    Raises:
      BadRecord: 'empty_file', 'missing_video', 'unsupported_video', 'truncated_video', 'corrupt_video', 'no_frames',
        'absurd_dimensions' or 'absurd_duration'.
      UserError: the value is none of these.
    """
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        clip = ArrayClip(value, max_pixels)
    elif isinstance(value, str) and os.path.isdir(value):
        clip = PictureClip.from_folder(value, max_pixels)
    elif isinstance(value, bytes | str):
        clip = _encoded(value, max_pixels, max_seconds)
    elif isinstance(value, list | tuple | np.ndarray) and all(isinstance(item, bytes | str) for item in value):
        clip = PictureClip(list(value), max_pixels)
    else:
        raise UserError(
            f"a video must be encoded bytes, a path, a list of pictures or uint8 pixels, not {type(value)}."
        )
    if len(clip) == 0:
        raise BadRecord("no_frames", "the video has no frames.")
    return clip


def _encoded(value: bytes | str, max_pixels: int, max_seconds: float) -> Clip:
    """Returns the frames of an encoded video."""
    open_file = functools.partial(io.BytesIO if isinstance(value, bytes) else opened, value)
    with open_file() as file:
        name = sniff(file)
        check_whole(file, name)
        if name in ANIMATIONS:
            return Animation(file, max_pixels, max_seconds)
    return Film(open_file, name, max_pixels, max_seconds)
