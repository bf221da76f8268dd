"""What the doctor finds, and what it says of what is broken."""

import errno
import json
import pathlib
import resource
import shutil

import numpy as np
import pytest

from mmjax.cli import main
from mmjax.doctor import command, job, machine
from mmjax.doctor.findings import DOUBTFUL, FINE, WRONG

ROOT = pathlib.Path(__file__).parents[2]


def states(findings):
    return {finding.what: finding.state for finding in findings}


def test_requirements_that_are_not_met_are_named(monkeypatch):
    assert set(states(machine.packages()).values()) == {FINE}  # else these tests would not run
    wanted = ["jax<0.1", "no-such-package>=2", "torch; extra == 'parity'"]
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda name: wanted)
    found = {finding.what: finding for finding in machine.packages() if finding.state == WRONG}
    assert set(found) == {"jax", "no-such-package"}
    assert "but mmjax needs <0.1" in found["jax"].found and found["jax"].advice == "pip install 'jax<0.1'"


def test_accelerators_that_are_not_used_are_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert states(machine.devices())["NVIDIA GPU"] == WRONG


def test_few_open_files(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    found = {finding.what: finding for finding in machine.host()}["open files"]
    assert found.state == DOUBTFUL and found.advice == "ulimit -n 1024"


def test_a_folder(tmp_path, monkeypatch):
    (found,) = machine.folder(tmp_path)
    assert "MB/s" in found.found and found.state in (FINE, DOUBTFUL) and not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e9}))
    assert states(machine.folder(tmp_path)) == {f"folder {tmp_path}": DOUBTFUL}

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(machine, "_probe", full)
    (found,) = machine.folder(tmp_path)
    assert found.state == WRONG and "No space left on device" in found.found
    monkeypatch.setattr(machine, "_probe", lambda path: (1.0, 1.0, False))
    assert states(machine.folder(tmp_path)) == {f"folder {tmp_path}": WRONG}


def test_the_input_is_measured_on_the_data_that_is_named(tmp_path):
    absent, config = str(tmp_path / "absent.csv"), str(ROOT / "configs" / "siglip.py:smoke")
    found = command._rate(config, absent)
    assert found.state == WRONG and f"'{absent}' does not exist" in found.found
    assert main(["doctor", "--data", absent]) == 2


def test_processes_that_differ_are_named():
    same = np.array([[5, 4], [5, 4], [5, 4]], np.uint32)
    assert not list(job.disagreements(same))
    same[1, 0], same[2, 1] = 6, 2
    found = {finding.what: finding.found for finding in job.disagreements(same)}
    assert found == {
        "packages of processes": "those of [1] differ from process 0's",
        "devices of processes": "those of [2] differ from process 0's",
    }


@pytest.mark.parametrize(("workdir", "code"), [("new/run", 0), ("gs://bucket/run", 1)])
def test_the_command(workdir, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--workdir", workdir, "--json"]) == code
    found = {each["what"]: each["state"] for each in json.loads(capsys.readouterr().out)}
    assert found["processes"] == FINE and ("wrong" in found.values()) == bool(code)


def test_a_config_without_data_is_said(capsys):
    assert main(["doctor", "--config", "configs/nothing.py"]) == 1
    assert "there is no such" in capsys.readouterr().out
