"""What a recording [T, C] with gaps (NaN) needs: a check, a window of it, another sampling rate, its statistics."""

from __future__ import annotations

import fractions

import numpy as np

from mmjax.data.source import BadRecord

MAX_TERM = 10_000
"""Of the fraction that two rates are taken as: the filter has 20 taps for each of its larger term."""


def resample(series: np.ndarray, rate: float, target: float) -> np.ndarray:
    """Returns [ceil(T target / rate), C] float32 of a series [T, C], low-pass filtered where the rate falls.

    Samples that were not measured are bridged by straight lines for the filter, and are NaN again in the result.

    Args:
      series: float32, NaN where nothing was measured.
      rate, target: in Hz; the larger over the smaller is taken as the nearest fraction of numbers up to MAX_TERM.
    """
    from scipy import signal  # scipy.signal takes half a second to import

    high, low = max(rate, target), min(rate, target)
    terms = max(1, min(1000, int(MAX_TERM * low / high)))
    ratio = fractions.Fraction(high / low).limit_denominator(terms)  # at least 1, so never nothing
    ratio = ratio if target > rate else 1 / ratio
    if len(series) == 1:
        return np.repeat(series, max(1, round(float(ratio))), axis=0)
    time, missing = np.arange(len(series)), np.isnan(series)
    bridged = np.zeros_like(series)
    for channel, gone in enumerate(missing.T):
        if not gone.all():
            bridged[:, channel] = np.interp(time, time[~gone], series[~gone, channel])
    out = signal.resample_poly(bridged, ratio.numerator, ratio.denominator, axis=0, padtype="line").astype(np.float32)
    nearest = np.minimum(np.round(np.arange(len(out)) / float(ratio)).astype(int), len(series) - 1)
    return np.where(missing[nearest], np.float32(np.nan), out)


def check(series: np.ndarray, column: str) -> None:
    """Raises BadRecord for a series [T, C] from which nothing can be learned."""
    if np.isinf(series).any():
        raise BadRecord("non_finite", f"{column}: {int(np.isinf(series).sum())} infinite samples.")
    there = ~np.isnan(series)
    if not there.any():
        raise BadRecord("no_samples", f"{column}: {len(series)} samples, none of them measured.")
    low, high = np.min(series, 0, initial=np.inf, where=there), np.max(series, 0, initial=-np.inf, where=there)
    if len(series) > 1 and not (high > low).any():
        raise BadRecord("flat_series", f"{column}: no channel changes in {len(series)} samples.")


def window(series: np.ndarray, length: int, place: float | None, measured: bool = True) -> np.ndarray:
    """Returns `length` samples of a series [T, C], all of it where it is shorter.

    Args:
      series: NaN where nothing was measured.
      length: in samples.
      place: in [0, 1), of the start among all those there are; None is nearest to the middle.
      measured: only starts whose window has a measured sample.
    """
    room = max(len(series) - length, 0)
    starts = np.arange(room + 1)
    if measured and room:
        counts = np.concatenate([[0], np.cumsum(~np.isnan(series).all(axis=1))])
        starts = np.flatnonzero(counts[length : length + room + 1] > counts[: room + 1])
    start = starts[np.argmin(np.abs(starts - room // 2))] if place is None else starts[int(place * len(starts))]
    return series[start : start + length]


def turn(series: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Returns [T, C] with each three channels (x, y, z) turned by the same rotation, as if the sensor sat askew.

    Args:
      series: C a multiple of 3; three of which one was not measured stay as they are.
      vector: [3], the axis of the rotation, as long as its angle in radians.
    """
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues' formula
    threes = series.reshape(len(series), -1, 3)  # [T, C / 3, 3]
    turned = np.where(np.isnan(threes).any(axis=-1, keepdims=True), threes, threes @ rotation.T.astype(np.float32))
    return turned.reshape(series.shape)


def mean_and_std(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation [C] float32 of what was measured in [T, C]; 0 of a channel that was not."""
    there = ~np.isnan(series)
    count = np.maximum(there.sum(axis=0), 1)
    mean = np.sum(series, axis=0, where=there) / count
    variance = np.sum(np.square(series - mean), axis=0, where=there) / count
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)
