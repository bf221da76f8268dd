"""The herald: what C++ writes passes through, the fatal log does not; the end has a sentence."""

import io
import os
import subprocess
import sys

import pytest

from mmjax.core import herald

FATAL = (
    "F1124 03:05:56.738391   15367 client.h:80] Terminating process because the JAX distributed service detected fatal "
    "errors. This most likely indicates that another task died. absl::Status: {}\n"
    "*** Check failure stack trace: ***\n    @     0x7fc768840634  absl::log_internal::LogMessage::SendToLog()\n"
)
UNHEALTHY = "UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats):\n{}\nThe tasks have crashed."
LEADER = "UNAVAILABLE: Failed to send RPC. Either the leader task was preempted/died/restarted unexpectedly or"


def said(*lines: str) -> str:
    sink = io.BytesIO()
    herald.relay(io.BytesIO("".join(lines).encode()), sink, 1, 4)
    return sink.getvalue().decode()


@pytest.mark.parametrize(
    ("status", "who"),
    [
        (UNHEALTHY.format("2"), "the job lost process 2 ("),
        (UNHEALTHY.format("2\n3"), "the job lost processes 2, 3 ("),
        ("INTERNAL: UNAVAILABLE: Task 3 heartbeat timeout. This", "the job lost process 3 ("),
        (LEADER, "the job lost process 0, which the others need ("),
        ("INTERNAL: anything", "the job lost another process ("),
    ],
)
def test_the_fatal_log_becomes_a_sentence(status, who):
    text = said("[Gloo] connected\n", FATAL.format(status))
    assert text.startswith("[Gloo] connected\nmmjax: process 1 of 4 stops: ") and text.count("\n") == 2
    assert who in text and "same command" in text


def test_an_end_without_a_word_and_one_with():
    assert "process 1 of 4 was killed or crashed." in said("free(): invalid pointer\n")
    assert said("a\n", herald.LEFT.decode() + "\n", "b\n") == "a\nb\n"


def test_it_starts_alone_and_outlives_the_signals_of_its_group():
    command = [sys.executable, "-I", "-S", herald.__file__, "1", "4"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdin.write(b"up\n")
    child.stdin.flush()
    assert child.stderr.readline() == b"up\n"
    for number in ("INT", "TERM", "HUP"):
        os.system(f"kill -{number} {child.pid}")
    _, last = child.communicate(timeout=30)
    assert b"process 1 of 4 was killed" in last and child.returncode == 0
