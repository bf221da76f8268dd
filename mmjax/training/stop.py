"""SIGTERM and SIGINT: finish the step, save, and leave with a code of its own."""

from __future__ import annotations

import signal
from types import FrameType

EXIT_CODE = 75
"""What the process exits with after a signal made it save and stop (EX_TEMPFAIL: run it again)."""


class Interrupted(Exception):
    """Training stopped early because it was asked to; everything is saved."""


class StopSignal:
    """A context in which SIGTERM and SIGINT ask the loop to stop; a second one acts as usual."""

    def __init__(self):
        self._received = False
        self._previous = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGTERM, signal.SIGINT):
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

    @property
    def received(self) -> bool:
        """Whether this process was asked to stop; see training.agreement for the others."""
        return self._received
