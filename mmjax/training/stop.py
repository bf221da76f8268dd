"""SIGTERM, SIGINT, SIGHUP: finish the step, save, and leave with a code of its own."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

EXIT_CODE = 75
"""What the process exits with after a signal made it save and stop (EX_TEMPFAIL: run it again)."""


HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = [number for number in (signal.SIGTERM, signal.SIGINT, HANG_UP) if number is not None]


class Interrupted(Exception):
    """Training stopped early because it was asked to; everything is saved."""


class StopSignal:
    """A context in which SIGTERM, SIGINT and SIGHUP ask the loop to stop; a second one acts as usual.

    A signal that was ignored before (by nohup) stays so. SIGHUP says that the terminal is gone, and with it whoever
    would read what is printed.
    """

    def __init__(self):
        self._received = False
        self._previous = {}

    def __enter__(self) -> StopSignal:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = True
        self._restore()
        if number == HANG_UP:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 for the rest of the process

    @property
    def received(self) -> bool:
        """Whether this process was asked to stop; see training.agreement for the others."""
        return self._received
