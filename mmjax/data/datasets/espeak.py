"""Synthetic speech by espeak-ng: text -> samples, the same ones for the same words, voice and settings.

The library comes with the package `espeakng_loader`. It is global, keeps state from one utterance to the next and may
crash, so it runs in a process of its own, `espeak_worker`: any number of threads may speak.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.datasets.built import packages

_LIMITS = {"rate_wpm": (80, 450), "pitch": (0, 99), "pitch_range": (0, 99), "volume": (0, 200)}


@dataclasses.dataclass(frozen=True)
class Utterance:
    """What to say, and how.

    Attributes:
      text: the words.
      voice: a language of espeak-ng with or without a variant, which is what makes a speaker: 'en-us', 'en-us+f3'.
      rate_wpm: words per minute, 80 to 450.
      pitch: base pitch, 0 to 99; 50 is the voice's own.
      pitch_range: 0 (monotone) to 99; 50 is the voice's own.
      volume: 0 to 200; 100 is normal.

    Raises:
      UserError: there is nothing to say, or a setting is out of its range.
    """

    text: str
    voice: str = "en-us"
    rate_wpm: int = 175
    pitch: int = 50
    pitch_range: int = 50
    volume: int = 100

    def __post_init__(self) -> None:
        if not self.text.strip() or "\0" in self.text:
            raise UserError(f"Utterance.text={self.text!r} must be words to say.")
        for name, (low, high) in _LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"Utterance.{name}={getattr(self, name)} must be between {low} and {high}.")


def speak(text: str, **how: str | int) -> tuple[np.ndarray, int]:
    """Says a text; see `Utterance` for how, `speak_all` for many.

    Returns:
      int16 [S] samples in [-32768, 32767], and their rate in Hz.

    Raises:
      UserError: see `Utterance` and `speak_all`.
    """
    samples, rate = speak_all([Utterance(text, **how)])
    return samples[0], rate


def speak_all(utterances: Sequence[Utterance]) -> tuple[list[np.ndarray], int]:
    """Says each text, in some milliseconds each.

    Args:
      utterances: what to say.

    Returns:
      int16 [S_i] samples of each, and their rate in Hz (22,050).

    Raises:
      UserError: `espeakng-loader` is not installed, espeak-ng lacks a voice, or it failed.
    """
    names = {voice: _identifier(voice) for voice in {utterance.voice for utterance in utterances}}
    header, found = _run(
        [dataclasses.asdict(utterance) | {"voice": names[utterance.voice]} for utterance in utterances]
    )
    return found, header["rate"]


@functools.cache
def voices() -> dict[str, str]:
    """Returns the languages that can be spoken -> espeak-ng's identifier of the voice: 'en-us' -> 'gmw/en-US'."""
    return _run([])[0]["voices"]


@functools.cache
def variants() -> tuple[str, ...]:
    """Returns the names that may follow the '+' of a voice, such as 'f3'."""
    folder = pathlib.Path(_loader().get_data_path()) / "voices" / "!v"
    return tuple(sorted(path.name for path in folder.iterdir()))


def _loader():
    return packages("Synthetic speech", {"espeakng_loader": "espeakng-loader"}, "data")["espeakng_loader"]


def _identifier(voice: str) -> str:
    """Returns what espeak-ng finds any voice by: some of its languages are no names that may have a variant.

    Raises:
      UserError: there is no such voice, or no such variant, which espeak-ng itself would ignore.
    """
    language, plus, variant = voice.partition("+")
    if language not in voices():
        hint = nearest(language, voices()) or f" It has {listed(voices(), 10)}."
        raise UserError(f"espeak-ng has no voice {language!r}.{hint}")
    if plus and variant not in variants():
        hint = nearest(variant, variants()) or f" It has {listed(variants(), 10)}."
        raise UserError(f"espeak-ng has no variant {variant!r} of the voice {language!r}.{hint}")
    return f"{voices()[language]}{plus}{variant}"


def _run(requests: Sequence[dict]) -> tuple[dict, list[np.ndarray]]:
    """Returns what the worker says of itself, and the samples of each request."""
    loader = _loader()
    worker = pathlib.Path(__file__).with_name("espeak_worker.py")
    command = [sys.executable, "-I", str(worker), str(loader.get_library_path()), str(loader.get_data_path())]
    done = subprocess.run(command, input=json.dumps(requests).encode(), capture_output=True)
    out = io.BytesIO(done.stdout)
    header = json.loads(out.readline() or b"{}")
    if done.returncode or header.get("rate", -1) < 0:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["it gave no reason"])[-1]
        raise UserError(f"espeak-ng cannot be run: {reason}.")
    return header, [_samples(out, request) for request in requests]


def _samples(out: io.BytesIO, request: dict) -> np.ndarray:
    header = json.loads(out.readline())
    if "error" in header:
        raise UserError(f"espeak-ng could not say {request['text']!r} as {request['voice']!r}: {header['error']}.")
    return np.frombuffer(out.read(header["bytes"]), np.int16)
