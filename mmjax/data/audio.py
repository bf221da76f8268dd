"""Recordings: encoded bytes or waveforms -> int16 samples of one length."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.types import Stream
from mmjax.data.audio_codec import decode, mono, resample
from mmjax.data.source import BadRecord, Record
from mmjax.data.transform import ArraySpec, get_column, spec_of, stack_padded

CROPS = ("center", "start")


@dataclasses.dataclass(frozen=True)
class AudioTransform:
    """Recording -> mono int16 samples: a random window of a longer one in training, always the same in evaluation.

    A shorter recording is followed by zeros that are masked. Samples travel as int16, half the bytes of float32, and
    are divided by 2**15 on the device; what is beyond full scale is clipped.

    Attributes:
      column: of the record: an encoded file (WAV, AIFF, FLAC, Ogg, MP3) as bytes, or a waveform [N] or [N, channels]
        as an array: float with full scale 1, or 16-bit integers.
      seconds: length of the window.
      sample_rate: of the result, in Hz.
      source_rate: of waveforms that are arrays, in Hz; files say theirs.
      crop: where evaluation takes its window from a longer recording: 'center' or 'start'.
      min_seconds: a shorter recording is a bad record.
      max_seconds: a longer recording is a bad record; a file is decoded whole, to find damage.

    Raises:
      UserError: a setting out of range.
    """

    column: str = "audio"
    seconds: float = 10.0
    sample_rate: int = 16_000
    source_rate: int | None = None
    crop: str = "center"
    min_seconds: float = 0.0
    max_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            hint = nearest(self.crop, CROPS)
            raise UserError(f"AudioTransform.crop={self.crop!r} must be one of {listed(CROPS)}.{hint}")
        if self.sample_rate < 1 or (self.source_rate is not None and self.source_rate < 1) or self.length < 1:
            raise UserError(
                f"AudioTransform: seconds={self.seconds}, sample_rate={self.sample_rate} and "
                f"source_rate={self.source_rate} must be positive and hold at least one sample."
            )

    @property
    def length(self) -> int:
        """S, the samples of the window."""
        return round(self.seconds * self.sample_rate)

    def out_spec(self) -> dict[str, ArraySpec]:
        """Returns the spec of values [S] int16 and mask [S] bool."""
        return {"values": ((self.length,), np.int16), "mask": ((self.length,), np.bool_)}

    def prepare(self, record: Record, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the window, [<= S] int16."""
        recording = get_column(record, self.column)

        def window(samples: int, rate: int) -> tuple[int, int]:
            return self._window(samples, rate, rng)

        if isinstance(recording, bytes):
            samples, rate = decode(recording, window)
        elif isinstance(recording, np.ndarray):
            samples, rate = self._cut(recording, window), self.source_rate
        else:
            raise UserError(
                f"the column {self.column!r} must hold an encoded recording as bytes, or its samples as an array, "
                f"not {type(recording).__name__}."
            )
        samples = resample(samples, rate, self.sample_rate)[: self.length]
        if not len(samples):
            raise BadRecord("too_short", f"no sample is left at {self.sample_rate} Hz.")
        return np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16)

    def _window(self, samples: int, rate: int, rng: np.random.Generator | None) -> tuple[int, int]:
        """Returns (start, stop) of the window in a recording of so many samples at its own rate."""
        seconds = samples / rate
        if seconds > self.max_seconds:
            raise BadRecord("absurd_duration", f"{seconds:g} seconds; max_seconds is {self.max_seconds:g}.")
        if seconds < self.min_seconds:
            raise BadRecord("too_short", f"{seconds:g} seconds; min_seconds is {self.min_seconds:g}.")
        wanted = -(-self.length * rate // self.sample_rate)
        room = max(samples - wanted, 0)
        start = int(rng.integers(room + 1)) if rng is not None else room // 2 if self.crop == "center" else 0
        return start, start + wanted

    def _cut(self, waveform: np.ndarray, window: Any) -> np.ndarray:
        if self.source_rate is None:
            raise UserError(
                f"the column {self.column!r} holds arrays: set AudioTransform.source_rate, their rate in Hz."
            )
        samples = mono(waveform)
        start, stop = window(len(samples), self.source_rate)
        return samples[start:stop]

    def collate(self, prepared: Sequence[np.ndarray | None]) -> Stream:
        """Returns values [B, S] int16 and mask [B, S]."""
        return stack_padded(prepared, self.out_spec())

    def spec(self) -> dict[str, Any]:
        """Returns the settings as JSON-able values."""
        return spec_of(self)
