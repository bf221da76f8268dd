"""`python -m mmjax plan` as its user sees it."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NO_LIBTPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
SMOKE = ("--config", "configs/openmoji.py:smoke", "--no-rate")


def plan(*arguments):
    command = [sys.executable, "-m", "mmjax", "plan", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300)


def test_simulated_devices_give_memory_and_collectives():
    done = plan(*SMOKE, "--topology", "cpu:8", "--mesh", "data=2,fsdp=4", "--batch", "64", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1} and found["batch_size"] == 64 and found["fits"]
    state = found["memory"]["state"]
    assert state["params"] + state["opt_state"] + state["batch"] <= found["memory"]["arguments"] < 2**24
    assert state["params"] < 4 * found["parameters"] / 2  # split four ways, but for what is small
    assert found["collectives"]["all-reduce"]["count"] > 0
    assert found["compute_seconds"] is None  # this compiler gives no cycles


@NO_LIBTPU
def test_a_slice_gives_time_and_cost():
    done = plan(*SMOKE, "--topology", "v5e:2x2")
    assert done.returncode == 0, done.stderr
    for words in ("it fits", "estimated time of a step", "image: attention core", "MFU", "chip-hours", "assumed"):
        assert words in done.stdout
    assert "WARNING" not in done.stderr


@pytest.mark.slow
@NO_LIBTPU
def test_what_does_not_fit_says_by_how_much_and_what_would():
    done = plan(*SMOKE, "--topology", "v5e:2x2", "--batch", "5120", "--set", "data.transforms.image.size=256", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1 and not found["fits"]
    assert found["memory"]["needed"] > found["memory"]["capacity"] > 15 * 2**30
    fitting = [choice for choice, one in found["tried"].items() if one["fits"]]
    assert fitting and "micro_batches=" in fitting[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "v5:2x2"), r"--topology: 'v5' is unknown. Did you mean 'v5"),
        (("--topology", "cpu"), "the layout is missing"),
        (("--topology", "16x16"), "expected a name such as v5e:16x16"),
        (("--topology", "cpu:1", "--mesh", "fsdp"), "expected AXIS=SIZE"),
        (("--topology", "cpu:1", "--mesh", "fsdp=3"), "does not fill the 1 devices"),
        (("--topology", "cpu:1", "--batch", "63", "--set", "micro_batches=2"), "batch size 63 is not divisible by 2"),
        (("--topology", "gpu"), "JAX finds none"),
    ],
)
def test_mistakes_are_sentences(arguments, message, capsys):
    from mmjax.cli import main

    assert main(["plan", *SMOKE, *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@NO_LIBTPU
def test_a_slice_that_is_none_is_a_sentence(capsys):
    from mmjax.cli import main

    assert main(["plan", *SMOKE, "--topology", "v5e:3x5"]) == 2
    assert "libtpu has no such slice" in capsys.readouterr().err
