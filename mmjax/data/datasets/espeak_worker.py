"""The process that espeak-ng runs in: a JSON list on stdin, for each of it a line of JSON and its samples on stdout.

Run by `datasets.espeak` as a script, alone: it needs the standard library only. espeak-ng keeps state from one
utterance to the next (phases, flutter, noise), so each is spoken by a fork of the process that has spoken nothing yet.
"""

import ctypes
import itertools
import json
import os
import sys

SEED, SYNCHRONOUS, UTF8 = 1, 2, 1
RATE, VOLUME, PITCH, RANGE = 1, 2, 3, 4  # espeak_PARAMETER
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Voice(ctypes.Structure):
    """espeak_VOICE."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),  # one byte of priority, then the language
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("unused", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


def voices(lib: ctypes.CDLL) -> dict[str, str]:
    """Returns language -> identifier of what espeak-ng speaks: 'en-us' -> 'gmw/en-US'."""
    lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(Voice))
    found, places = {}, lib.espeak_ListVoices(None)
    for place in itertools.takewhile(bool, places):
        found.setdefault(place.contents.languages[1:].decode(), place.contents.identifier.decode())
    return found


def speak(lib: ctypes.CDLL, text: str, voice: str, rate_wpm: int, pitch: int, pitch_range: int, volume: int) -> bytes:
    """Returns native int16 samples."""
    pieces = []

    @CALLBACK
    def collect(samples, count, events):
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    lib.espeak_SetSynthCallback(collect)
    if lib.espeak_SetVoiceByName(voice.encode()):
        raise RuntimeError(f"has no voice {voice!r}")
    for parameter, value in ((RATE, rate_wpm), (VOLUME, volume), (PITCH, pitch), (RANGE, pitch_range)):
        lib.espeak_SetParameter(parameter, value, 0)
    if hasattr(lib, "espeak_ng_SetRandSeed"):
        lib.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    data = text.encode() + b"\0"
    if lib.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, UTF8, None, None):
        raise RuntimeError("failed")
    lib.espeak_Synchronize()
    return b"".join(pieces)


def answer(header: dict, samples: bytes = b"") -> None:
    """Writes one answer."""
    sys.stdout.buffer.write(json.dumps(header | {"bytes": len(samples)}).encode() + b"\n" + samples)
    sys.stdout.buffer.flush()


def in_fork(lib: ctypes.CDLL, request: dict) -> None:
    """Speaks in a fork, which answers; this process says so where it could not."""
    child = os.fork()
    if not child:
        try:
            answer({}, speak(lib, **request))
        except RuntimeError as error:
            answer({"error": str(error)})
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        answer({"error": "crashed"})


def main(library: str, data: str) -> None:
    """Answers {"rate", "voices"}, then every request of stdin."""
    lib = ctypes.CDLL(library)
    rate = lib.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(data), 0)
    answer({"rate": rate, "voices": voices(lib) if rate > 0 else {}})
    for request in json.load(sys.stdin.buffer) if rate > 0 else ():
        in_fork(lib, request)


if __name__ == "__main__":
    main(*sys.argv[1:])
