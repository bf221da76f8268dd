"""Videos: encoded bytes, pictures or pixels -> a few uint8 frames of one size."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, at_least, one_of
from mmjax.core.types import Stream
from mmjax.data.clip import Clip
from mmjax.data.clip_sampling import SAMPLINGS, run, spread, timed_run
from mmjax.data.codec import MAX_PIXELS
from mmjax.data.crops import INTERPOLATIONS, fit, random_box, resize
from mmjax.data.film import MAX_SECONDS
from mmjax.data.source import Record
from mmjax.data.transform import ArraySpec, get_column, spec_of, stack_padded
from mmjax.data.video_codec import open_clip


@dataclasses.dataclass(frozen=True)
class VideoTransform:
    """A video -> uint8 frames: one random crop and flip for the whole clip in training, the middle in evaluation.

    Attributes:
      column: of the record: an encoded film or animation (bytes, or the path of a file), a list of encoded pictures
        (or the path of a folder of them), or uint8 pixels [T, H, W, 3].
      num_frames: that are taken; a shorter clip is padded at the end, its mask False there.
      size: height and width of the result.
      sampling: 'uniform': evenly over the whole clip; 'segments': the same in evaluation, in training one at random
        in each of num_frames equal parts (TSN); 'clip': a run of frames, in training from a random start.
      stride: of 'clip', in frames.
      frame_rate: of 'clip', frames a second instead of stride; where a clip has no times (pictures, pixels), stride.
      scale, ratio, flip, interpolation, antialias, fit: as in data.image.ImageTransform.
      max_pixels: a frame with more makes a bad record.
      max_seconds: a longer film or animation is a bad record.
      mean, std: of red, green and blue in [0, 1]; only recorded, the encoder normalises on the device.
    """

    column: str = "video"
    num_frames: int = 8
    size: int = 112
    sampling: str = "uniform"
    stride: int = 1
    frame_rate: float | None = None
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    interpolation: str = "bilinear"
    antialias: bool = True
    fit: str = "center"
    max_pixels: int = MAX_PIXELS
    max_seconds: float = MAX_SECONDS
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        where = "VideoTransform"
        one_of(self.sampling, SAMPLINGS, f"{where}.sampling")
        one_of(self.interpolation, INTERPOLATIONS, f"{where}.interpolation")
        one_of(self.fit, ("center", "squash"), f"{where}.fit")
        at_least(1, where, num_frames=self.num_frames, size=self.size, stride=self.stride)
        if self.frame_rate is not None and self.frame_rate <= 0:
            raise UserError(f"{where}.frame_rate={self.frame_rate} must be above 0, or None.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(
                f"{where}: scale={self.scale} must be two rising shares of the area in (0, 1], ratio={self.ratio} two "
                "rising positive numbers."
            )

    def out_spec(self) -> dict[str, ArraySpec]:
        """Returns the spec of values [num_frames, size, size, 3] uint8 and mask [num_frames] bool."""
        shape = (self.num_frames, self.size, self.size, 3)
        return {"values": (shape, np.uint8), "mask": ((self.num_frames,), np.bool_)}

    def prepare(self, record: Record, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the clip's [<= num_frames, size, size, 3] uint8 pixels; only these frames are kept in memory."""
        clip = open_clip(get_column(record, self.column), self.max_pixels, self.max_seconds)
        numbers, places = np.unique(self._numbers(clip, rng), return_inverse=True)
        look = _Crop(self, rng)
        frames = [look(frame) for frame in clip.frames(numbers.tolist())]
        return np.stack(frames)[places]  # [<= num_frames, size, size, 3]

    def _numbers(self, clip: Clip, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the numbers of the frames, not falling."""
        if self.sampling != "clip":
            return spread(len(clip), self.num_frames, rng if self.sampling == "segments" else None)
        times = None if self.frame_rate is None else clip.times()
        if times is None:
            return run(len(clip), self.num_frames, self.stride, rng)
        return timed_run(times, self.num_frames, self.frame_rate, rng)

    def collate(self, prepared: Sequence[np.ndarray | None]) -> Stream:
        """Returns values [B, num_frames, size, size, 3] uint8 and mask [B, num_frames]."""
        return stack_padded(prepared, self.out_spec())

    def spec(self) -> dict[str, Any]:
        """Returns the settings as JSON-able values."""
        return spec_of(self)


class _Crop:
    """Brings the frames of one clip to size, all in the same way: drawn at the first one."""

    def __init__(self, transform: VideoTransform, rng: np.random.Generator | None):
        self._t, self._rng, self._box, self._flip = transform, rng, None, False

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        t = self._t
        if self._rng is None:
            return fit(frame, t.size, t.fit, t.interpolation, t.antialias)
        if self._box is None:
            self._box = random_box(*frame.shape[:2], t.scale, t.ratio, self._rng)
            self._flip = t.flip and self._rng.random() < 0.5
        top, left, bottom, right = self._box
        size = (t.size, t.size)
        frame = resize(frame[top:bottom, left:right], size, t.interpolation, antialias=t.antialias, exact=False)
        return frame[:, ::-1] if self._flip else frame
