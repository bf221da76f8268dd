"""A model of the electrocardiogram: Gaussian waves on the phase of each beat move a dipole that 12 leads look at.

References:
  McSharry et al., A Dynamical Model for Generating Synthetic Electrocardiogram Signals, 2003 (the waves, their angles
    and widths, and the spectrum of the heart rate).
  Sameni et al., Multichannel ECG and Noise Modeling, 2007 (the same waves for each axis of a dipole; leads; noise).
  Dower et al., On Deriving the Electrocardiogram from Vectorcardiographic Leads, 1980 (what a lead sees of the dipole).
"""

from __future__ import annotations

import dataclasses

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

WAVES = ("P", "Q", "R", "S", "T")

ANGLES = np.array([-np.pi / 3, -np.pi / 12, 0.0, np.pi / 12, np.pi / 2])
"""theta_i, radians from the R peak at 60 beats a minute (McSharry et al., table I)."""

WIDTHS = np.array([0.25, 0.1, 0.1, 0.1, 0.4])
"""b_i, radians (McSharry et al., table I)."""

DIPOLE = np.array(
    [[0.08, 0.12, -0.03], [-0.10, -0.08, -0.25], [1.0, 0.8, 0.15], [-0.15, -0.15, 0.6], [0.3, 0.25, -0.15]]
)
"""Amplitude of each wave along x (to the left), y (down) and z (to the back) in mV; chosen here, of a healthy shape."""

_SEEN = {
    "I": (0.632, -0.235, 0.059),
    "II": (0.235, 1.066, -0.132),
    "V1": (-0.515, 0.157, -0.917),
    "V2": (0.044, 0.164, -1.387),
    "V3": (0.882, 0.098, -1.277),
    "V4": (1.213, 0.127, -0.601),
    "V5": (1.125, 0.127, -0.086),
    "V6": (0.831, 0.076, 0.230),
}


def lead_matrix() -> np.ndarray:
    """Returns [12, 3]: what each of LEADS sees of the dipole; III and the augmented ones follow from I and II."""
    seen = {lead: np.array(row) for lead, row in _SEEN.items()}
    first, second = seen["I"], seen["II"]
    seen |= {"III": second - first, "aVR": -(first + second) / 2}
    seen |= {"aVL": first - second / 2, "aVF": second - first / 2}
    return np.stack([seen[lead] for lead in LEADS])


@dataclasses.dataclass
class Beats:
    """The beats of a recording.

    Attributes:
      peaks: [N] seconds of the R peaks, rising.
      rate: beats a minute that waves are timed by.
      atrial: seconds from the P to the R peak; None leaves it to the model's angle. NaN says that there are no P waves.
      ventricular: [N] bool, beats that start in a ventricle: no P, a wide QRS in another direction, T against it.
    """

    peaks: np.ndarray
    rate: float
    atrial: float | None = None
    ventricular: np.ndarray | None = None


def intervals(count: int, mean: float, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Returns [count] seconds between beats: a slow wave (0.1 Hz) and breathing (0.25 Hz) around a mean.

    Args:
      count: of beats.
      mean: of the intervals, in seconds.
      spread: their standard deviation, as a share of the mean.
      rng: of the phases.

    References:
      McSharry et al. 2003 (power spectrum of the RR intervals): two Gaussian bands of width 0.01 Hz with a power ratio
    of 0.5, random phases.
    """
    frequencies = np.fft.rfftfreq(512, 0.25)  # 128 s at 4 Hz
    bands = [weight * np.exp(-0.5 * ((frequencies - at) / 0.01) ** 2) for at, weight in ((0.1, 0.5), (0.25, 1.0))]
    spectrum = np.sqrt(sum(bands)) * np.exp(2j * np.pi * rng.random(len(frequencies)))
    wave = np.fft.irfft(spectrum)
    wave = mean * (1 + spread * wave / wave.std())
    return np.interp(np.arange(count) * mean, np.arange(512) * 0.25, wave)


def dipole(beats: Beats, time: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Returns [T, 3] mV: the sum over beats and waves of a exp(-(theta - theta_i)^2 / 2 b_i^2).

    That is the solution of the model's equations, d/dt = -sum a_i omega / b_i^2 (theta - theta_i) exp(...), with the
    phase theta = omega (t - peak) of each beat. As the heart beats faster, angles and widths grow by the model's powers
    of the rate, so that waves shorten less than the pause between them.

    Args:
      beats: when they come.
      time: [T] seconds.
      amplitudes: [5, 3] mV of WAVES along x, y, z.
    """
    factor = np.sqrt(beats.rate / 60)
    angles = ANGLES * np.array([np.sqrt(factor), factor, 1.0, factor, np.sqrt(factor)])
    widths = WIDTHS * factor
    omega = 2 * np.pi * beats.rate / 60
    if beats.atrial is not None:
        angles[0] = -omega * np.nan_to_num(beats.atrial)
        amplitudes = amplitudes * np.array([not np.isnan(beats.atrial), 1, 1, 1, 1])[:, None]
    near = (beats.peaks > time[0] - 3) & (beats.peaks < time[-1] + 3)  # no wave reaches farther
    own = near & (False if beats.ventricular is None else beats.ventricular)
    found = _waves(beats.peaks[near & ~own], time, omega, angles, widths) @ amplitudes  # [T, 3]
    if own.any():
        wide = _waves(beats.peaks[own], time, omega, angles, widths * np.array([1, 1, 3.0, 1, 1.3]))
        found = found + wide @ _ectopic(amplitudes)
    return found


def _waves(peaks: np.ndarray, time: np.ndarray, omega: float, angles: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Returns [T, 5]: each wave with height 1, summed over the beats."""
    phase = omega * (time[:, None] - peaks)  # [T, N]
    near = phase[..., None] - angles  # [T, N, 5]
    return np.exp(-0.5 * np.square(near / widths)).sum(axis=1)


def _ectopic(amplitudes: np.ndarray) -> np.ndarray:
    """Returns the amplitudes [5, 3] of a beat from a ventricle, out of a person's own: R turned over, T against it."""
    turned = 1.5 * amplitudes[2] * np.array([-0.6, 1.0, -3.0])
    return np.stack([np.zeros(3), np.zeros(3), turned, np.zeros(3), -0.35 * turned])


def atrial_waves(
    time: np.ndarray, frequency: float, amplitude: float, wander: float, rng: np.random.Generator
) -> np.ndarray:
    """Returns [T, 3] mV: the saw teeth of flutter (wander 0), or of fibrillation, whose frequency and size vary.

    References:
      Stridh & Sörnmo, Spatiotemporal QRST Cancellation Techniques for Analysis of Atrial Fibrillation, 2001 (the
      saw tooth of a few harmonics with frequency and amplitude modulation).
    """
    slow = rng.uniform(0.1, 0.5)
    phase = 2 * np.pi * (frequency * time + wander * np.sin(2 * np.pi * slow * time + rng.uniform(0, 6.28)))
    phase += rng.uniform(0, 2 * np.pi)
    teeth = sum(np.sin(k * phase) / k for k in range(1, 4)) * (1 + 2 * wander * np.sin(2 * np.pi * slow * time))
    direction = np.array([0.2, 0.9, -0.5]) if not wander else np.array([0.1, 0.4, -0.9])
    return amplitude * teeth[:, None] * (direction * rng.uniform(0.7, 1.3, 3))


def noise(time: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Returns [T, 12] mV: what electrodes add, different in each lead.

    The baseline wanders below 0.5 Hz, muscles are white noise that swells and fades, and the mains hum at 50 Hz or at
    60 Hz (40 Hz once sampled at 100 Hz).

    Args:
      time: [T] seconds.
      level: 1 is an ordinary recording.
      rng: of it all.
    """
    shape = (3, 1, len(LEADS))
    slow = rng.uniform(0.05, 0.5, shape)  # Hz
    waves = np.sin(2 * np.pi * (slow * time[:, None] + rng.random(shape)))  # [3, T, 12]
    baseline = np.sum(rng.uniform(0.0, 0.08, shape) * waves, axis=0)  # [T, 12]
    swell = 1 + 0.7 * np.sin(2 * np.pi * (rng.uniform(0.1, 0.4) * time + rng.random()))[:, None]
    muscle = rng.uniform(0.005, 0.03) * swell * rng.standard_normal(baseline.shape)
    mains = rng.choice([50.0, 60.0]) + rng.uniform(-0.1, 0.1)
    hum = rng.uniform(0, 0.02, len(LEADS)) * np.sin(2 * np.pi * (mains * time[:, None] + rng.random(len(LEADS))))
    return level * (baseline + muscle + hum)
