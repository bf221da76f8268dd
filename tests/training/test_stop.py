"""Signals that ask a run to stop, and what becomes of what it prints."""

import os
import signal
import sys

import pytest

from mmjax.training.stop import SIGNALS, StopSignal


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_asks_and_the_second_acts_as_usual(number, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    before = signal.signal(number, signal.SIG_DFL)  # a shell ignores SIGINT in what it starts in the background
    try:
        with StopSignal() as stop:
            assert not stop.received
            os.kill(os.getpid(), number)
            assert stop.received and signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_nothing_is_printed_to_a_terminal_that_is_gone(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with StopSignal():
        print("before")
        os.kill(os.getpid(), signal.SIGHUP)
        print("after")
        print("after", file=sys.stderr)
    assert capfd.readouterr() == ("before\n", "")


def test_what_was_ignored_stays_so():
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.received
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)
