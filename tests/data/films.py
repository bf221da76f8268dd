"""Small videos for the tests of this folder, encoded in memory."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

FRAMES = 40
FILMS = {
    "mp4": ("mp4", "mpeg4", 2),
    "mp4 h264": ("mp4", "libx264", 2),
    "webm": ("webm", "libvpx-vp9", None),
    "mkv": ("matroska", "libx264", 2),
    "avi": ("avi", "mpeg4", 0),
    "avi with b-frames": ("avi", "libx264", 2),
    "mpegts": ("mpegts", "libx264", 2),
}
"""name -> container, codec, B-frames."""


def pixels(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Returns frame `number`, grey by its number (mod 42) below a gradient that stays, [height, width, 3] uint8."""
    frame = np.full((height, width, 3), 6 * (number % 42), np.uint8)
    frame[: height // 4] = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    return frame


def shown(frame: np.ndarray) -> int:
    """Returns the number (mod 42) of a decoded frame."""
    return round(float(frame[frame.shape[0] // 2 :].mean()) / 6)


def film(name: str = "mp4", count: int = FRAMES, rate: int = 10, gop: int = 12, turned: int = 0, **size: int) -> bytes:
    """Returns `count` frames in one of FILMS, a key frame every `gop`."""
    import av

    container, codec, b_frames = FILMS[name]
    buffer, options = io.BytesIO(), {"crf": "10"} if codec in ("libx264", "libvpx-vp9") else {}
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = pixels(0, **size).shape[:2]
        stream.pix_fmt, stream.codec_context.gop_size, stream.codec_context.bit_rate = "yuv420p", gop, 4_000_000
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if turned:
            stream.set_display_rotation(turned)
        for number in range(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels(number, **size), format="rgb24")))
        out.mux(stream.encode())
    return buffer.getvalue()


def sound() -> bytes:
    """Returns an MP4 with a second of silence and no picture."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def animation(format: str, count: int = FRAMES, **options: Any) -> bytes:
    """Returns `count` frames as GIF, WEBP or PNG, 100 ms each."""
    images = [Image.fromarray(pixels(number)) for number in range(count)]
    options |= {"lossless": True} if format == "WEBP" else {}
    buffer = io.BytesIO()
    images[0].save(
        buffer, format, save_all=True, append_images=images[1:], duration=options.pop("duration", 100), **options
    )
    return buffer.getvalue()
