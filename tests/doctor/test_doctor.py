"""What the doctor finds, and what it says of what is broken."""

import errno
import importlib.metadata
import json
import pathlib
import resource
import shutil

import numpy as np
import pytest

from mmjax.cli import main
from mmjax.doctor import command, data, job, machine
from mmjax.doctor.findings import DOUBTFUL, FINE, WRONG
from tests.devices import run_on_devices, run_on_hosts

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


def test_a_folder_that_is_not_installed_is_a_finding(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.importlib.metadata, "requires", nothing)
    assert states(machine.packages()) == {"packages": FINE, "mmjax": DOUBTFUL}
    monkeypatch.setattr(machine.importlib.metadata, "version", nothing)
    assert machine.version("mmjax") == "(not installed)"
    assert "jax (not installed)" in next(machine.packages()).found


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


def test_the_input_is_measured_on_the_data_that_is_named(tmp_path, capsys):
    absent, config = str(tmp_path / "absent.csv"), str(ROOT / "configs" / "siglip.py:smoke")
    found = command._rate(config, absent)
    assert found.state == WRONG and f"'{absent}' does not exist" in found.found
    assert main(["doctor", "--data", absent, "--json"]) == 1
    assert absent in capsys.readouterr().out


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


@pytest.fixture
def captions(tmp_path) -> str:
    """A manifest of 40 pictures of 100 bytes, the last 10 of which are not there."""
    rows = [f"{number}.jpg,caption" for number in range(40)]
    for row in rows[:30]:
        (tmp_path / row.split(",")[0]).write_bytes(b"x" * 100)
    (tmp_path / "all.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    return str(tmp_path / "all.csv")


def test_data_is_read(captions, monkeypatch):
    found = data.look(captions)
    assert found.state == WRONG and "40 records of image, caption; reads" in found.found
    assert "damaged of 40: 10 missing_image" in found.found
    monkeypatch.setattr(data, "MOST_BAD", 0.5)
    assert data.look(captions).state == DOUBTFUL
    found = data.look("no/such.csv")
    assert found.state == WRONG and "does not exist" in found.found


def test_credentials_in_the_name_of_data_are_not_printed():
    found = data.look("no/such.csv?X-Amz-Signature=s3cret")
    assert found.what == "data no/such.csv?X-Amz-Signature=***" and "s3cret" not in found.found


def test_the_size_of_records_is_counted(captions):
    (count, size, bad, _) = data._read(data.open_spec(captions, needs=()), 100)
    assert (count, size, dict(bad)) == (40, 30 * (100 + len("caption")), {"missing_image": 10})


COLLECTIVES = """
import jax
from mmjax.doctor import job
found = {each.what: each for each in job.collectives(megabytes=1)}
assert all(each.state == "fine" and "GB/s a device over 4" in each.found for each in found.values()), found
real = jax.lax.ppermute
jax.lax.ppermute = lambda x, *args: real(x, *args).at[0, -1].add(1)
broken = [each for each in job.collectives(megabytes=1) if each.state == "wrong"]
print(sorted(found), [each.what for each in broken], broken[0].found)
"""


def test_every_collective_is_measured_and_checked():
    out = run_on_devices(COLLECTIVES, 4)
    assert "['all-gather', 'all-reduce', 'collective-permute'] ['collective-permute'] gives 4 instead of 3" in out


PROCESSES = """
import os
import jax
os.chdir(os.path.join(os.environ["FOLDERS"], str(jax.process_index())))
from mmjax import cli
from mmjax.doctor import machine
from mmjax.doctor.findings import WRONG, Finding
if jax.process_index() == 1:
    machine.host = lambda: iter([Finding("cores", "are on fire", WRONG, "water")])
print("code", cli.main(["doctor", "--workdir", "run", "--json"]), flush=True)
"""


def test_what_another_process_finds_is_said(tmp_path, monkeypatch):
    for process in "01":
        (tmp_path / process).mkdir()
    monkeypatch.setenv("FOLDERS", str(tmp_path))
    first, second = run_on_hosts(PROCESSES, num_devices=1)
    assert "code 1" in first and "code 1" in second
    found = {each["what"]: each for each in json.loads(first[first.index("[\n") : first.rindex("]") + 1])}
    assert found["process 1: cores"]["found"] == "are on fire" and found["cores"]["state"] != WRONG
    assert "devices" in found and "process 1: devices" not in found  # what is fine is said once
    assert "on fire" not in second
    assert found["folder run of all"]["found"] == "processes [1] do not see what process 0 writes there"
    assert not list(tmp_path.glob("*/run/.doctor*"))
