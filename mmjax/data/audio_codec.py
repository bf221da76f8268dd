"""Encoded recordings -> float32 mono samples, through libsndfile (soundfile) and soxr; damage is always said."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from mmjax.core.optional import optional
from mmjax.data.audio_header import check_audio
from mmjax.data.source import BadRecord

Window = Callable[[int, int], tuple[int, int]]
"""(samples of the recording, its sample rate) -> (start, stop) of what is wanted of it."""

RATES = (1_000, 768_000)
"""The least and the greatest sample rate that a recording may have, in Hz."""

MAX_LEVEL = 8.0
"""Samples beyond this are no audio on a scale of 1, such as integers that were stored as floats."""

_BLOCK = 2**22
_ONE_FRAME = 1152
_ENDLESS = 2**62


def decode(data: bytes, window: Window | None = None) -> tuple[np.ndarray, int]:
    """Decodes a WAV, AIFF, FLAC, Ogg (Vorbis, Opus) or MP3 file.

    The whole file is decoded, so that damage anywhere in it is found; only the window is kept.

    Args:
      data: encoded bytes.
      window: which samples to keep; None keeps all.

    Returns:
      [N] float32 mono samples, the mean of the channels, full scale being 1; and their rate in Hz.

    Raises:
      BadRecord: the bytes are truncated, corrupt, without samples or no recording.
      UserError: soundfile is not installed.
    """
    soundfile = _extra("soundfile")
    data = check_audio(data)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            frames, rate = file.frames, file.samplerate
            _check_header(frames, rate)
            start, stop = window(frames, rate) if window else (0, frames)
            kept, found = _read(file, start, stop)
            slack = _ONE_FRAME if file.format == "MP3" else 0
    except (soundfile.SoundFileError, ValueError) as error:
        raise BadRecord("corrupt_audio", _reason(error)) from None
    if found < frames - slack:
        raise BadRecord("truncated_audio", f"{found} samples could be decoded of {frames}.")
    return kept, rate


def _check_header(frames: int, rate: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise BadRecord("unsupported_audio", f"a sample rate of {rate} Hz; {RATES[0]} to {RATES[1]} can be read.")
    if frames < 1:
        raise BadRecord("no_samples", "the recording has no samples.")
    if frames >= _ENDLESS:
        raise BadRecord("unsupported_audio", "the header does not say how long the recording is.")


def _read(file: Any, start: int, stop: int) -> tuple[np.ndarray, int]:
    """Returns the mono samples of [start, stop), and how many there are in the whole file."""
    kept, place = [], 0
    for block in _blocks(file):
        check_samples(block)
        part = block[max(start - place, 0) : max(stop - place, 0)]
        kept.append(part.mean(axis=1))
        place += len(block)
    return np.concatenate(kept) if kept else np.zeros(0, np.float32), place


def _blocks(file: Any) -> Iterator[np.ndarray]:
    """Yields [n, channels] float32 until the file gives no more."""
    while len(block := file.read(max(_BLOCK // file.channels, 1), dtype="float32", always_2d=True)):
        yield block


def check_samples(samples: np.ndarray) -> None:
    """Raises BadRecord 'corrupt_audio' where samples are not finite, or far beyond full scale."""
    level = float(np.abs(samples).max(initial=0.0))  # NaN and infinity come through
    if not level <= MAX_LEVEL:
        raise BadRecord("corrupt_audio", f"a sample of size {level:g}; they should lie between -1 and 1.")


def mono(waveform: np.ndarray) -> np.ndarray:
    """Returns [N] float32 samples of a waveform [N] or [N, channels], full scale being 1.

    Args:
      waveform: float; uint8 around 128; or int16, or a wider integer that holds 16-bit samples, as TFDS gives.

    Raises:
      BadRecord: 'unsupported_audio' for another shape or dtype, 'no_samples' for none or no channels, 'corrupt_audio'
        for samples out of range.
    """
    if waveform.ndim not in (1, 2) or waveform.dtype.kind not in "fiu":
        raise BadRecord("unsupported_audio", f"expected samples [N] or [N, channels], found {waveform.dtype} "
                        f"{list(waveform.shape)}.")  # fmt: skip
    if waveform.size == 0:
        raise BadRecord("no_samples", f"a waveform {list(waveform.shape)} has no samples.")
    x = waveform.astype(np.float32)
    if waveform.dtype == np.uint8:
        x = (x - 128) / 128
    elif waveform.dtype.kind in "iu":
        x = x / 2**15
        if np.abs(x).max() > 1:
            raise BadRecord("corrupt_audio", f"{waveform.dtype} samples beyond 16 bits.")
    check_samples(x)
    return x if x.ndim == 1 else x.mean(axis=1)


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Returns samples [N] float32 at another rate, [N * target / rate].

    Raises:
      UserError: soxr is not installed.
    """
    if rate == target or not len(samples):
        return samples
    return _extra("soxr").resample(samples, rate, target)


def _extra(name: str) -> ModuleType:
    return optional(name, f"Recordings are read through {name}", "audio")


def _reason(error: Exception) -> str:
    return f"libsndfile: {getattr(error, 'error_string', None) or error}"
