"""Tables of the mel frontend, made once in float64: mel scales, triangular filters, windows."""

from __future__ import annotations

import numpy as np

from mmjax.core.errors import UserError, one_of

MEL_SCALES = ("slaney", "htk", "kaldi")
WINDOWS = ("hann", "hamming", "povey")


def hz_to_mel(hz: np.ndarray, scale: str) -> np.ndarray:
    """Returns mels of frequencies in Hz: 'slaney' is linear below 1 kHz; 'htk' and 'kaldi' are logarithmic throughout.

    References:
      Slaney, Auditory Toolbox, 1998; O'Shaughnessy, Speech Communication, 1987 (HTK's formula).
    """
    hz = np.asarray(hz, np.float64)
    if scale != "slaney":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    return np.where(hz < 1000.0, hz * 3 / 200, 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4))


def mel_to_hz(mels: np.ndarray, scale: str) -> np.ndarray:
    """Returns the frequencies in Hz of mels, the inverse of `hz_to_mel`."""
    mels = np.asarray(mels, np.float64)
    if scale != "slaney":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    return np.where(mels < 15.0, mels * 200 / 3, 1000.0 * 6.4 ** ((np.maximum(mels, 15.0) - 15.0) / 27.0))


def mel_filters(
    sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float, scale: str, unit_area: bool
) -> np.ndarray:
    """Returns [n_fft // 2 + 1, num_mels] float32: overlapping triangles, evenly spaced in mels from fmin to fmax.

    Args:
      sample_rate: in Hz.
      n_fft: samples of the transform.
      num_mels: number of triangles.
      fmin, fmax: edges of the first and the last, in Hz.
      scale: a name of MEL_SCALES. 'kaldi' is HTK's scale with sides that are straight in mels, the others' in Hz.
      unit_area: divide each triangle by half its width in Hz (librosa's norm='slaney'); else its peak is 1.

    Raises:
      UserError: an unknown scale, or edges that are not 0 <= fmin < fmax <= sample_rate / 2.
    """
    one_of(scale, MEL_SCALES, "mel_scale")
    if not 0 <= fmin < fmax <= sample_rate / 2:
        raise UserError(
            f"mel: fmin={fmin} and fmax={fmax} must rise from 0 to half of the sample rate ({sample_rate / 2:g})."
        )
    edges = np.linspace(hz_to_mel(fmin, scale), hz_to_mel(fmax, scale), num_mels + 2)
    bins = np.arange(n_fft // 2 + 1) * sample_rate / n_fft  # [K]
    hz = mel_to_hz(edges, scale)  # [M + 2]
    points, at = (edges, hz_to_mel(bins, scale)) if scale == "kaldi" else (hz, bins)
    rise = (at[:, None] - points[:-2]) / (points[1:-1] - points[:-2])  # [K, M]
    fall = (points[2:] - at[:, None]) / (points[2:] - points[1:-1])  # [K, M]
    filters = np.maximum(0.0, np.minimum(rise, fall))
    return (filters * (2.0 / (hz[2:] - hz[:-2])) if unit_area else filters).astype(np.float32)


def window(kind: str, length: int, periodic: bool) -> np.ndarray:
    """Returns [length] float64: 'hann', 'hamming', or 'povey' (Kaldi's, a Hann window to the power 0.85).

    Raises:
      UserError: an unknown kind.
    """
    one_of(kind, WINDOWS, "window")
    angle = 2 * np.pi * np.arange(length) / (length if periodic else length - 1)
    if kind == "hamming":
        return 0.54 - 0.46 * np.cos(angle)
    hann = 0.5 - 0.5 * np.cos(angle)
    return hann if kind == "hann" else np.maximum(hann, 0.0) ** 0.85
