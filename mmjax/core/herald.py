"""A small process beside each process of a job: says in a sentence what the jax runtime would say with a core's dump.

When a process of a job dies, the coordination service of jax ends the others from C++: a fatal log, a stack trace and
abort(), where Python cannot speak any more (a callback for it exists and cannot be called from Python). When process 0
dies, which runs the service, that is at once. So what C++ writes to standard error goes through here: this process
hands it on line by line, keeps the fatal log back and says which process is gone. It imports nothing of mmjax, for it
has to start fast, and it ends when the last writer of its standard input does.
"""

from __future__ import annotations

import re
import signal
import sys
from typing import BinaryIO

LEFT = b"mmjax-herald: left"
"""The line by which a process says that it ends by itself, so that its silence needs no sentence."""

_FATAL = b"Terminating process because the JAX distributed service detected fatal errors"
_LEADER = b"Either the leader task was preempted/died"
_LOST = (rb"stopped sending heartbeats\):\s*(\d[\d, \n]*)", rb"Task (\d+) heartbeat timeout")


def relay(source: BinaryIO, sink: BinaryIO, process: int, count: int) -> None:
    """Copies lines until the end of source, the fatal log excepted; then says what that was, or that no word was said.

    Args:
      source: what the process's C++ code writes, and LEFT.
      sink: standard error.
      process, count: this is process `process` of `count`.
    """
    left, fatal = False, None
    for line in source:
        if line.rstrip() == LEFT:
            left = True
        elif fatal is not None or _FATAL in line:
            fatal = (fatal or b"") + line
        else:
            sink.write(line)
            sink.flush()
    if fatal is not None or not left:
        sink.write(f"mmjax: {sentence(fatal, process, count)}\n".encode())
        sink.flush()


def sentence(fatal: bytes | None, process: int, count: int) -> str:
    """Returns why a process ended without a word of its own; fatal is the runtime's log, None where there was none."""
    again = "Start all of them again with the same command: the job goes on from its last complete checkpoint."
    if fatal is None:
        return f"process {process} of {count} was killed or crashed. {again}"
    return f"process {process} of {count} stops: the job lost {_lost(fatal)} (killed, or cut off). {again}"


def _lost(fatal: bytes) -> str:
    """Returns 'process 2', as far as the runtime's log tells."""
    for pattern in _LOST:
        if found := re.search(pattern, fatal):
            numbers = found[1].decode().replace(",", " ").split()
            return f"process{'es' * (len(numbers) > 1)} {', '.join(numbers)}"
    return "process 0, which the others need" if _LEADER in fatal else "another process"


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to the whole group; the process is waited for
        signal.signal(number, signal.SIG_IGN)
    relay(sys.stdin.buffer, sys.stderr.buffer, int(sys.argv[1]), int(sys.argv[2]))
