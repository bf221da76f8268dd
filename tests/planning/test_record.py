"""A plan as JSON and as tables: each figure says where it comes from. The GPU is one in name: this CPU compiles."""

import io
import json
import pathlib

import jax
import pytest
from rich.console import Console

from mmjax.core.config import load_config
from mmjax.planning.chips import CHIPS, GPUS
from mmjax.planning.compile import configured
from mmjax.planning.memory import Memory
from mmjax.planning.plan import Plan, make_plan
from mmjax.planning.record import pipeline_json, to_json
from mmjax.planning.report import report
from mmjax.planning.topology import Topology

CONFIG = f"{pathlib.Path(__file__).parents[2] / 'configs' / 'openmoji.py'}:smoke"


def text_of(plan, *arguments):
    console = Console(file=io.StringIO(), width=200)
    console.print(report(plan, *arguments))
    return console.file.getvalue()


@pytest.fixture(scope="module")
def gpu_plan():
    topology = Topology("gpu", "gpu", tuple(jax.devices("cpu")[:1]), GPUS["H100"])
    return make_plan(configured(load_config(CONFIG), topology, ["precision=float32"]), topology)


def refused(largest):
    memory = Memory(0, 0, 0, 20 * 2**30, 15 * 2**30, {"params": 2**30, "batch": 2**20}, largest)
    return Plan("v5e:2x2", 4, 1, 64, {"data": 4}, 1, 1, memory, 1, 1, {}, {}, 1, 0.0, 4.0, CHIPS["v5e"])


def test_a_gpu_has_a_roofline(gpu_plan):
    (bound, seconds), *others = gpu_plan.parts.items()
    assert bound.startswith("roofline: ") and not others
    assert seconds >= gpu_plan.hardware_flops / GPUS["H100"].peak_flops > 0
    assert 0 < gpu_plan.mfu(seconds) <= 1
    text = " ".join(text_of(gpu_plan, None, "because").split())  # titles are wrapped
    assert (
        "a roofline of the step: what it computes, and about what it moves, at 989 TFLOP/s and 3.35 TB/s" in text
        and "without an estimate" not in text
    )
    assert "not measured" in text and "because" in text


def test_every_figure_of_the_json_has_a_source(gpu_plan):
    found = json.loads(json.dumps(to_json(gpu_plan), allow_nan=False))
    assert found["chip"]["peak_flops"] == 989e12 and found["chip"]["bandwidth"] == 3.35e12
    words = {word for source in found["sources"].values() for word in source.split(", ")}
    assert words == {"compiler", "counted", "assumption", "measured"}
    told = {name.partition(".")[0] for name in found["sources"]}
    given = ("topology", "devices", "hosts", "batch_size", "mesh", "micro_batches", "sources")  # what was asked for
    assert set(found) - set(given) <= told
    assert found["sources"]["compute_seconds"] == "counted, assumption"  # no cycles


def test_what_the_pipeline_gives_stands_beside_what_is_needed(gpu_plan):
    rate = gpu_plan.examples_per_host / 2.5
    found = pipeline_json(gpu_plan, rate, "")
    assert found["pipeline_machines_per_host"] == 3 and found["pipeline_not_measured"] is None
    each = found["pipeline_megabytes_per_second"] / found["pipeline_examples_per_second"]
    assert each == pytest.approx(gpu_plan.bytes_per_host / gpu_plan.examples_per_host / 1e6)
    row = next(line for line in text_of(gpu_plan, rate).splitlines() if "machines like this one to feed a host" in line)
    assert row.split("│")[2].strip() == "3"
    assert pipeline_json(gpu_plan, None, "why")["pipeline_not_measured"] == "why"


def test_what_does_not_fit_shows_the_state_and_what_the_compiler_names():
    text = " ".join(text_of(refused([(14 * 2**30, "bf16[64] image")])).split())
    assert "it does NOT fit, 5.00 GiB too much" in text and "1.00 GiB" in text  # params
    assert "bf16[64] image" in text and "14.00 GiB" in text
    assert "names none" in text_of(refused([]))
    found = to_json(refused([]))
    assert found["communication_seconds"] is None and found["sources"]["memory.capacity"] == "compiler"
