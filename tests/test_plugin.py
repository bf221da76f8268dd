"""A modality, a fusion, a loss and a task from outside of the package: a file in some folder, and a config."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from tests.devices import ROOT, device_env

PLUGIN = '''
"""Smells: readings of a few sensors, to be told apart."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.core.types import Outputs, Stream, Tokens
from mmjax.data.transform import get_column, spec_of, stack_rows
from mmjax.layers.pooling import summary
from mmjax.tasks.task import TaskLoss


@dataclasses.dataclass(frozen=True)
class Smells:
    length: int = 64
    name: str = "smells"
    columns: tuple = ("smell", "label")

    def __len__(self):
        return self.length

    def read(self, index):
        reading = np.eye(4, dtype=np.float32)[index % 2] + 0.1 * np.random.default_rng(index).normal(size=4)
        return {"smell": reading.astype(np.float32), "label": index % 2}

    def label(self, index):
        return f"smell {index}"


@dataclasses.dataclass(frozen=True)
class SmellTransform:
    column: str = "smell"
    sensors: int = 4

    def out_spec(self):
        return {"values": ((self.sensors,), np.float32), "mask": ((1,), np.bool_)}

    def prepare(self, record, rng):
        return get_column(record, self.column)

    def collate(self, prepared):
        mask = np.array([[row is not None] for row in prepared])
        return Stream(stack_rows(prepared, self.out_spec()), mask)

    def spec(self):
        return spec_of(self)


class SmellEncoder(nn.Module):
    width: int

    @nn.compact
    def __call__(self, stream, rng=None):
        return Tokens(nn.Dense(self.width)(stream.values)[:, None], stream.mask)


class Largest(nn.Module):
    """Element-wise maximum over the modalities."""

    @nn.compact
    def __call__(self, tokens, rng=None):
        pooled = jnp.stack([summary(each) for each in tokens.values()]).max(axis=0)
        return Outputs(fused=Tokens(pooled[:, None], jnp.ones((len(pooled), 1), bool), pooled))


def margin_loss(scores, labels, margin):
    sign = 2.0 * labels - 1
    return jnp.maximum(0.0, margin - sign * scores[:, 0])


@dataclasses.dataclass(frozen=True)
class Margin:
    head: str = "smell_score"
    margin: float = 1.0

    def embed(self, apply, params, batch, rng):
        return apply(params, batch.streams, rng).predictions[self.head], ()

    def loss(self, by_example, shared, batch):
        labels = batch.targets["label"]
        right = jnp.mean((by_example[:, 0] > 0) == (labels > 0))
        return TaskLoss(margin_loss(by_example, labels, self.margin), batch.mask, {"right": right})


@dataclasses.dataclass(frozen=True)
class SignEvaluator:
    head: str = "smell_score"

    def __call__(self, embed, batches, **extra):
        right = [np.asarray((embed(b)[self.head][:, 0] > 0) == (b.targets["label"] > 0)) for b in batches]
        return {"accuracy": float(np.concatenate(right).mean())}
'''

CONFIG = """
import fiddle as fdl
import smells

from mmjax.data.pipeline import Pipeline
from mmjax.data.targets import LabelTarget
from mmjax.decoders.head import Head
from mmjax.model import MultimodalModel
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule


def get_config():
    source, targets = fdl.Config(smells.Smells), {"label": fdl.Config(LabelTarget)}
    return fdl.Config(
        Experiment,
        model=fdl.Config(
            MultimodalModel,
            {"smell": fdl.Config(smells.SmellEncoder, 8)},
            fdl.Config(smells.Largest),
            {"smell_score": fdl.Config(Head, 1, "values")},
        ),
        task=fdl.Config(smells.Margin),
        data=fdl.Config(Pipeline, source, {"smell": fdl.Config(smells.SmellTransform)}, 16, targets=targets),
        optimizer=fdl.Config(Optimizer, learning_rate=0.05, schedule=fdl.Config(Schedule, warmup=1)),
        duration="20 steps",
        evaluations={"held_out": fdl.Config(Evaluation, source, fdl.Config(smells.SignEvaluator), 16, targets=targets)},
    )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with the plug-in and a run of its config."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "smells.py").write_text(textwrap.dedent(PLUGIN))
    (folder / "config.py").write_text(textwrap.dedent(CONFIG))
    done = run(folder, "train.py", "--config", str(folder / "config.py"), "--workdir", str(folder / "run"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(folder, *command):
    env = device_env(1) | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def test_it_trains_from_a_folder(folder):
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    right = [record["right"] for record in records if "right" in record]
    assert right[-1] == 1.0
    assert json.loads((folder / "run" / "results.json").read_text())["held_out/accuracy"] == 1.0


def test_its_checkpoint_loads_only_where_its_package_is_allowed(folder):
    refused = run(folder, "-m", "mmjax", "evaluate", "--run", str(folder / "run"))
    assert refused.returncode == 2 and "--allow-import" in refused.stderr and "Traceback" not in refused.stderr
    done = run(folder, "-m", "mmjax", "evaluate", "--run", str(folder / "run"), "--allow-import", "smells")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy" in done.stdout
