"""Which frames of a clip are taken: evenly over all of it, or a strided run."""

from __future__ import annotations

import numpy as np

SAMPLINGS = ("uniform", "segments", "clip")


def spread(length: int, num_frames: int, rng: np.random.Generator | None) -> np.ndarray:
    """Returns one frame number of each of num_frames equal segments, [min(length, num_frames)] int.

    Args:
      length: frames that there are; where they are fewer, all are taken.
      num_frames: segments.
      rng: draws a frame in each segment; None takes the middle one.

    References:
      Wang et al., Temporal Segment Networks, 2016, section 3.1.
    """
    if length <= num_frames:
        return np.arange(length)
    edges = np.arange(num_frames) * length / num_frames  # [num_frames]
    within = np.full(num_frames, 0.5) if rng is None else rng.random(num_frames)
    return np.minimum((edges + within * length / num_frames).astype(int), length - 1)


def run(length: int, num_frames: int, stride: int, rng: np.random.Generator | None) -> np.ndarray:
    """Returns every stride-th frame number from a random start (rng None: the middle), at most num_frames of them."""
    room = max(length - 1 - (num_frames - 1) * stride, 0)
    start = room // 2 if rng is None else int(rng.integers(room + 1))
    numbers = start + np.arange(num_frames) * stride
    return numbers[numbers < length]


def timed_run(times: np.ndarray, num_frames: int, frame_rate: float, rng: np.random.Generator | None) -> np.ndarray:
    """Returns the frames on show at num_frames times, 1 / frame_rate seconds apart, from a random start.

    Args:
      times: [N] seconds at which the frames are shown; the last one stays as long as the median of the others.
      num_frames: at most so many; fewer where the clip ends before.
      frame_rate: a second; above the clip's own, frames are repeated.
      rng: draws the start; None takes the middle.
    """
    total = times[-1] + (float(np.median(np.diff(times))) if len(times) > 1 else 1 / frame_rate)
    room = max(total - num_frames / frame_rate, 0.0)
    wanted = room * (0.5 if rng is None else rng.random()) + np.arange(num_frames) / frame_rate  # [num_frames]
    wanted = wanted[: max(1, int(np.sum(wanted < total - 1e-9)))]
    return np.maximum(np.searchsorted(times, wanted + 1e-6, "right") - 1, 0)
