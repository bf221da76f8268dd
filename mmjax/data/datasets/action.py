"""Synthetic action clips: an emoji shown at the places of a ring, in an order that one of eight motions gives.

Every motion is an order of the same frames: T places on a ring, each with a size. 'right' shows them by their x,
'up' by their height, 'clockwise' by their angle, 'grow' by the size, and so on. The set of frames of a clip therefore
says nothing of its motion, however it is summed up; only who sees the order can tell.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from mmjax.core.errors import at_least
from mmjax.core.types import Stream
from mmjax.data.codec import decode
from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.data.source import Record
from mmjax.data.transform import ArraySpec, get_column, spec_of, stack_rows

MOTIONS = ("left", "right", "up", "down", "clockwise", "anticlockwise", "grow", "shrink")
"""The classes, each beside its reversal in time."""

PHRASES = {
    **{name: f"moving {name}" for name in MOTIONS[:4]},
    **{name: f"circling {name}" for name in MOTIONS[4:6]},
    "grow": "growing",
    "shrink": "shrinking",
}
"""What captions call a motion."""

PARAMETERS = ("motion", "x", "y", "radius", "phase", "turn", "small", "large", "shuffle")
"""What describes a clip: number of the motion; centre, radius and sizes as shares of the canvas; first angle and the
part of the circle it has, in turns; the seed that spreads the sizes over the places."""


@dataclasses.dataclass(eq=False)
class MovingEmojiSource:
    """OpenMoji pictures with motions, clips_per_emoji of each picture; synthetic, deterministic by index.

    Columns: 'image' PNG bytes; 'motion' float64 [9], see PARAMETERS; 'label' a name of MOTIONS; 'caption' list[str],
    'red apple moving left'. The clips of a picture are neighbours and go through the motions in turn; place, radius,
    first angle, speed and sizes are drawn for each from (seed, split, index), alike for every motion.

    Attributes:
      credit: what a picture that shows these has to say.
      split: 'train', 'test' (held-out pictures), or any split that OpenMojiSource takes.
      clips_per_emoji: clips of each picture; a multiple of 8 has every motion equally often.
      seed: of the draws.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UserError: clips_per_emoji below 1, or what OpenMojiSource raises.
    """

    credit: ClassVar[str] = OpenMojiSource.credit

    split: str = "train"
    clips_per_emoji: int = 8
    seed: int = 0
    data_dir: str | None = None

    def __post_init__(self):
        at_least(1, "MovingEmojiSource", clips_per_emoji=self.clips_per_emoji)
        self._emoji = OpenMojiSource(self.split, data_dir=self.data_dir)
        self.name = f"moving_emoji:{self.split}"
        self.columns = ("image", "motion", "label", "caption")
        self.classes = {"label": MOTIONS}
        self.found = f"{len(self._emoji):,} pictures, {self.clips_per_emoji} clips of each"

    def __len__(self) -> int:
        return len(self._emoji) * self.clips_per_emoji

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe."""
        number, clip = divmod(index, self.clips_per_emoji)
        record = self._emoji.read(number)
        motion = (number + clip) % len(MOTIONS)
        rng = np.random.default_rng([self.seed, zlib.crc32(self.split.encode()), index])
        phrase = PHRASES[MOTIONS[motion]]
        return {
            "image": record["image"],
            "motion": np.array([motion, *_drawn(rng)]),
            "label": MOTIONS[motion],
            "caption": [f"{name} {phrase}" for name in record["caption"]],
        }

    def label(self, index: int) -> str:
        """Returns 'moving_emoji:train[17]'."""
        return f"{self.name}[{index}]"


def _drawn(rng: np.random.Generator) -> list[float]:
    """Returns PARAMETERS but for the motion, such that the picture stays on the canvas."""
    radius, phase, turn = rng.uniform(0.15, 0.26), rng.random(), rng.uniform(0.7, 1.0)
    small = rng.uniform(0.17, 0.25)
    large = small * rng.uniform(1.4, 1.9)
    room = 0.5 - radius - large / 2
    x, y = 0.5 + rng.uniform(-room, room, 2)
    return [x, y, radius, phase, turn, small, large, float(rng.integers(2**31))]


def places(motion: np.ndarray, num_frames: int) -> np.ndarray:
    """Returns [T, 3] float64: x, y and size of the picture in each frame, as shares of the canvas; y grows downward.

    Args:
      motion: [9], see PARAMETERS.
      num_frames: T.
    """
    kind, x, y, radius, phase, turn, small, large, shuffle = motion.tolist()
    turns = np.arange(num_frames) / num_frames * turn  # [T]
    angle = 2 * np.pi * (phase + turns)
    sizes = np.linspace(small, large, num_frames)
    sizes = sizes[np.random.default_rng(int(shuffle)).permutation(num_frames)]  # [T]
    frames = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle), sizes], axis=1)  # [T, 3]
    keys = {"right": frames[:, 0], "down": frames[:, 1], "clockwise": turns, "grow": sizes}
    name = MOTIONS[int(kind)]
    forward = {"left": "right", "up": "down", "anticlockwise": "clockwise", "shrink": "grow"}
    order = np.argsort(keys[forward.get(name, name)], kind="stable")
    return frames[order[::-1] if name in forward else order]


@dataclasses.dataclass(frozen=True)
class MovingEmojiTransform:
    """The picture and motion of a MovingEmojiSource -> uint8 frames on a white canvas.

    Attributes:
      num_frames: of the clip.
      size: height and width of the canvas in pixels.
      column: of the encoded picture.
      motion_column: of the motion.
    """

    num_frames: int = 8
    size: int = 48
    column: str = "image"
    motion_column: str = "motion"

    def __post_init__(self) -> None:
        at_least(1, "MovingEmojiTransform", num_frames=self.num_frames, size=self.size)

    def out_spec(self) -> dict[str, ArraySpec]:
        """Returns the spec of values [num_frames, size, size, 3] uint8 and mask [num_frames] bool."""
        shape = (self.num_frames, self.size, self.size, 3)
        return {"values": (shape, np.uint8), "mask": ((self.num_frames,), np.bool_)}

    def prepare(self, record: Record, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the frames [num_frames, size, size, 3] uint8; rng is not used, each record is one clip."""
        del rng
        picture = decode(get_column(record, self.column))
        motion = places(get_column(record, self.motion_column), self.num_frames) * self.size  # [T, 3] in pixels
        side = max(1, min(picture.shape[0], int(np.ceil(motion[:, 2].max()))))
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
        return np.stack([self._frame(picture, *place) for place in motion.tolist()])

    def _frame(self, picture: np.ndarray, x: float, y: float, size: float) -> np.ndarray:
        """Returns a canvas with the picture, `size` pixels wide, centred at (x, y)."""
        scale = size / picture.shape[0]
        shift = (size - scale) / 2  # of the middle of the first pixel from that of the picture
        matrix = np.array([[scale, 0, x - 0.5 - shift], [0, scale, y - 0.5 - shift]])
        canvas = (self.size, self.size)
        white = (255, 255, 255)
        return cv2.warpAffine(picture, matrix, canvas, flags=cv2.INTER_LINEAR, borderValue=white)

    def collate(self, prepared: Sequence[np.ndarray | None]) -> Stream:
        """Returns values [B, num_frames, size, size, 3] uint8 and mask [B, num_frames]."""
        mask = np.array([clip is not None for clip in prepared], np.bool_)
        return Stream(stack_rows(prepared, self.out_spec()), np.repeat(mask[:, None], self.num_frames, axis=1))

    def spec(self) -> dict[str, Any]:
        """Returns the settings as JSON-able values."""
        return spec_of(self)
