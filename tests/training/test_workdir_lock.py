"""One job a workdir: the second is refused before it writes; what was killed blocks nobody."""

import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from mmjax.core.errors import UserError
from mmjax.training.lock import NAME, hold
from tests.devices import device_env, run_on_hosts

HOLDER = """
import pathlib, sys
from mmjax.training.lock import hold
with hold(pathlib.Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another_job(workdir: pathlib.Path):
    """A process that holds the lock of workdir."""
    command = [sys.executable, "-c", HOLDER, str(workdir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=device_env(1), **pipes)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_job_is_refused_by_name_and_a_killed_one_blocks_nobody(tmp_path):
    with another_job(tmp_path) as process:
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with (
            pytest.raises(UserError, match=rf"in use: process {process.pid} of host \S+, since \d{{4}}-"),
            hold(tmp_path, pytest.fail),
        ):
            pytest.fail("two jobs hold one workdir")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold(tmp_path, pytest.fail):
            assert str(os.getpid()) in (tmp_path / NAME).read_text()


def test_the_command_line_refuses_and_leaves_the_folder_alone(tmp_path):
    with another_job(tmp_path):
        command = [sys.executable, "train.py", "--config", "configs/openmoji.py:smoke", "--workdir", str(tmp_path)]
        done = subprocess.run(command, env=device_env(1), capture_output=True, text=True)
        assert done.returncode == 69 and "is in use: process" in done.stderr and "Traceback" not in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_one_process_cannot_hold_it_twice_and_an_error_gives_it_back(tmp_path):
    with pytest.raises(ValueError, match="of the run"), hold(tmp_path, pytest.fail):
        with pytest.raises(UserError, match="in use"), hold(tmp_path, pytest.fail):
            pytest.fail("held twice")
        raise ValueError("of the run")
    with hold(tmp_path, pytest.fail):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = []
    with hold(tmp_path, told.append):
        pass
    assert len(told) == 1 and "no locks (No locks available)" in told[0]


def test_the_processes_of_a_job_share_it_and_all_are_refused_together(tmp_path):
    source = f"""
        import pathlib
        from mmjax.core.errors import UserError
        from mmjax.training.lock import hold
        try:
            with hold(pathlib.Path({str(tmp_path)!r}), print):
                print("trains")
        except UserError as error:
            print(error)
    """
    assert all(output.endswith("trains\n") for output in run_on_hosts(source, num_devices=1))
    with another_job(tmp_path):
        first, second = run_on_hosts(source, num_devices=1)
    assert "is in use: process" in first and "cannot be locked; process 0 says why" in second
