"""Time series: a recording [T, C] -> a window of it at one sampling rate, NaN where nothing was measured."""

from __future__ import annotations

import dataclasses
import fractions
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, at_least
from mmjax.core.types import Stream
from mmjax.data.recordings import check, mean_and_std, resample, turn, window
from mmjax.data.source import BadRecord, Record
from mmjax.data.transform import ArraySpec, get_column, spec_of, stack_padded


@dataclasses.dataclass(frozen=True)
class SeriesTransform:
    """A random window in training, the middle one in evaluation; padded at the end where the recording is shorter.

    Every modality of an example draws its own window, one with a measured sample in it. Modalities that must stay in
    step (the accelerometer and the gyroscope of a watch) have the same name in `draws_with`: they take the same window
    of recordings of the same length, measured or not, so that one of them may be missing there.

    Attributes:
      column: of the record, float [T, C]; NaN is a sample that was not measured.
      length: of the window, in samples at `sampling_rate`.
      channels: the name of each channel, in order.
      sampling_rate: in Hz; None leaves every recording at its own rate.
      units: of each channel ('g', 'mV'); only recorded.
      source_rate: in Hz, of the recordings; None where they have `sampling_rate` already.
      rate_column: of the record, its own rate in Hz; comes before source_rate.
      channels_column: of the record, the names of its channels, of which `channels` are picked; those it lacks are NaN.
      rotation: standard deviation in degrees by which a training window is turned about each axis, every three
        channels (x, y, z of an accelerometer, of a gyroscope) alike.
      scale: least and greatest factor of a training window, one for all its channels.
      speed: least and greatest factor by which a training window runs faster than it was recorded.
      jitter: standard deviation of the noise that training adds, as a share of each channel's own in the window.
      channel_dropout: greatest probability that a channel of a training window is missing; each window draws its own,
        between 0 and this, so that windows with all channels are among them. One channel always stays.
      draws_with: a name; modalities that have the same draw the same window, speed, rotation and scale, whatever else
        each of them does; jitter and channel dropout are each one's own.

    References:
      Um et al., Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring, 2017 (rotation, scaling,
      jitter, time warping).
    """

    column: str = "series"
    length: int = 128
    channels: tuple[str, ...] = ("x", "y", "z")
    sampling_rate: float | None = None
    units: tuple[str, ...] = ()
    source_rate: float | None = None
    rate_column: str | None = None
    channels_column: str | None = None
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    speed: tuple[float, float] = (1.0, 1.0)
    jitter: float = 0.0
    channel_dropout: float = 0.0
    draws_with: str | None = None

    def __post_init__(self) -> None:
        at_least(1, "SeriesTransform", length=self.length)
        at_least(0, "SeriesTransform", rotation=self.rotation, jitter=self.jitter, channel_dropout=self.channel_dropout)
        if isinstance(self.channels, str) or not 0 < len(self.channels) == len(set(self.channels)):
            raise UserError(f"SeriesTransform.channels={self.channels!r} must be the channels' names, each once.")
        if self.units and len(self.units) != len(self.channels):
            raise UserError(
                f"SeriesTransform.units={self.units!r} must name one unit for each of {len(self.channels)} channels."
            )
        for name in ("scale", "speed"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise UserError(f"SeriesTransform.{name}={(low, high)} must be two rising positive factors.")
        if self.channel_dropout >= 1:
            raise UserError(f"SeriesTransform.channel_dropout={self.channel_dropout} must be at least 0 and below 1.")
        if self.rotation and len(self.channels) % 3:
            raise UserError(f"SeriesTransform.rotation turns channels in threes; {len(self.channels)} are not.")
        for name in ("sampling_rate", "source_rate"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UserError(f"SeriesTransform.{name}={getattr(self, name)} must be a positive rate in Hz.")
        if self.sampling_rate is None and (self.source_rate or self.rate_column):
            raise UserError("SeriesTransform: a source_rate or rate_column is of use with a sampling_rate alone.")

    def out_spec(self) -> dict[str, ArraySpec]:
        """Returns the spec of values [length, C] float32 and mask [length] bool."""
        return {"values": ((self.length, len(self.channels)), np.float32), "mask": ((self.length,), np.bool_)}

    def prepare(self, record: Record, rng: np.random.Generator | None) -> np.ndarray:
        """Returns the window [<= length, C] float32.

        Raises:
          BadRecord: 'wrong_shape', 'wrong_channels', 'non_finite' for infinite samples, 'no_samples' where nothing was
            measured, 'flat_series' where no channel ever changes, 'wrong_rate'.
        """
        series = self._picked(record, get_column(record, self.column))
        check(series, self.column)
        chance = None if rng is None else _Chance.drawn(rng, self.column)
        ratio = self._ratio(record) * (1.0 if chance is None else chance.speed(self.speed))
        place = None if chance is None else chance.place
        cut = window(series, math.ceil(self.length * ratio), place, measured=self.draws_with is None)
        if ratio != 1:
            cut = resample(cut, ratio, 1.0)[: self.length]
        return cut if chance is None else self._augmented(cut, chance)

    def collate(self, prepared: Sequence[np.ndarray | None]) -> Stream:
        """Returns values [B, length, C] float32, 0 in the padding, and mask [B, length]: False where nothing is."""
        measured = [series is not None and not np.isnan(series).all() for series in prepared]
        rows = [series if there else None for series, there in zip(prepared, measured, strict=True)]
        return stack_padded(rows, self.out_spec())

    def spec(self) -> dict[str, Any]:
        """Returns the settings, with the channels' names, units and rate, stored in the checkpoint."""
        return spec_of(self)

    def _picked(self, record: Record, value: Any) -> np.ndarray:
        try:
            series = np.asarray(value)
        except ValueError:  # rows of different lengths
            raise BadRecord("wrong_shape", f"{self.column}: the samples have different numbers of channels.") from None
        if series.ndim != 2 or series.dtype.kind not in "fiu":
            found = f"{series.dtype} {list(series.shape)}"
            raise BadRecord("wrong_shape", f"{self.column}: expected numbers [samples, channels], found {found}.")
        names = self.channels if self.channels_column is None else _texts(get_column(record, self.channels_column))
        if series.shape[1] != len(names):
            detail = f"{self.column}: {series.shape[1]} channels, expected {len(names)}: {', '.join(names)}."
            raise BadRecord("wrong_channels", detail)
        if self.channels_column is None:
            return series.astype(np.float32)
        if not set(names) & set(self.channels):
            raise BadRecord("wrong_channels", f"{self.column}: none of its channels ({', '.join(names)}) is wanted.")
        picked = np.full((len(series), len(self.channels)), np.nan, np.float32)
        for place, name in enumerate(self.channels):
            if name in names:
                picked[:, place] = series[:, names.index(name)]
        return picked

    def _ratio(self, record: Record) -> float:
        """Returns samples of the recording for a sample of the window."""
        if self.sampling_rate is None:
            return 1.0
        if self.rate_column is None:
            return (self.source_rate or self.sampling_rate) / self.sampling_rate
        found = get_column(record, self.rate_column)
        try:
            rate = float(np.asarray(found).reshape(-1)[0])
        except (ValueError, TypeError, IndexError):
            raise BadRecord("wrong_rate", f"{self.rate_column}: expected a rate in Hz, found {found!r}.") from None
        if not 1e-4 < rate / self.sampling_rate < 1e4:  # NaN fails too
            detail = f"{self.rate_column}: {rate} Hz cannot be brought to {self.sampling_rate} Hz."
            raise BadRecord("wrong_rate", detail)
        return rate / self.sampling_rate

    def _augmented(self, series: np.ndarray, chance: _Chance) -> np.ndarray:
        rng = chance.own
        series = turn(series, np.deg2rad(self.rotation) * chance.axis) if self.rotation else series
        series = series * np.float32(chance.scale(self.scale))
        if self.jitter:
            noise = self.jitter * mean_and_std(series)[1] * rng.standard_normal(series.shape)
            series = series + noise.astype(np.float32)
        if self.channel_dropout:
            drop = rng.random(series.shape[1]) < rng.uniform(0, self.channel_dropout)
            there = np.flatnonzero(~np.isnan(series).all(axis=0))
            drop[rng.choice(there) if there.size else 0] = False
            series = np.where(drop, np.float32(np.nan), series)
        return series


@dataclasses.dataclass(frozen=True)
class _Chance:
    """What a training window draws: the first five are the same for all that draw with it, `own` is not.

    Attributes:
      place: of the window, in [0, 1).
      tempo, size: in [0, 1), between the bounds of speed and scale.
      axis: [3] standard normal, of the rotation.
      own: generator of the modality alone.
    """

    place: float
    tempo: float
    size: float
    axis: np.ndarray
    own: np.random.Generator

    @classmethod
    def drawn(cls, rng: np.random.Generator, column: str) -> _Chance:
        """Draws all of it, in the same order whatever the settings are."""
        place, tempo, size = rng.random(3)
        return cls(place, tempo, size, rng.standard_normal(3), np.random.default_rng([*rng.bytes(8), *column.encode()]))

    def speed(self, bounds: tuple[float, float]) -> float:
        """Returns a fraction of small numbers, which is fast to resample by."""
        return float(fractions.Fraction(bounds[0] + self.tempo * (bounds[1] - bounds[0])).limit_denominator(20))

    def scale(self, bounds: tuple[float, float]) -> float:
        """Returns a factor between the bounds."""
        return bounds[0] + self.size * (bounds[1] - bounds[0])


def _texts(value: Any) -> list[str]:
    """Returns a list of names, whether they come as text or bytes."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in value]
