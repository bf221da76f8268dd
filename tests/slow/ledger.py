"""A job of tiny steps that keeps books: which examples led to the parameters of a checkpoint, in it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import fiddle as fdl
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from mmjax.balance.modulator import Modulator, Step
from mmjax.core.types import Outputs
from mmjax.data.pipeline import Pipeline
from mmjax.data.sampler import Sampler
from mmjax.data.sources import WebDatasetSource
from mmjax.data.text import TextTransform
from mmjax.tasks.task import TaskLoss
from mmjax.training.checkpoint import Checkpoints, Keep
from mmjax.training.experiment import Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule
from tests.devices import ROOT, device_env
from tests.launch.test_launch import free_port

SHARDS, EACH, BATCH = 3, 30, 16
FACTOR = 1_000_003


@dataclasses.dataclass(frozen=True)
class Ledger(Modulator):
    """Counts each record, and folds each step's records, in their order, into a number; both live in the state."""

    def init(self, params: Any, loss: TaskLoss) -> Any:
        """Returns the empty books."""
        return {"counts": jnp.zeros(SHARDS * EACH, jnp.int32), "digest": jnp.zeros((), jnp.uint32)}

    def modulate(self, updates: Any, state: Any, step: Step) -> tuple[Any, Any, dict]:
        """Returns updates as they are and the books with this step's records."""
        group = step.batch.group
        folded = jnp.sum((group.astype(jnp.uint32) + 1) * (jnp.arange(len(group), dtype=jnp.uint32) + 1))
        counts = state["counts"].at[group].add(1)
        return updates, {"counts": counts, "digest": state["digest"] * jnp.uint32(FACTOR) + folded}, {}


class Letters(nn.Module):
    """The mean of the letters' embeddings, turned into one number."""

    @nn.compact
    def __call__(self, streams, rng=None):
        text = streams["text"]
        letters = nn.Embed(300, 8)(text.values).mean(axis=1)  # [B, 8]
        return Outputs(predictions={"number": nn.Dense(1)(letters)})


@dataclasses.dataclass(frozen=True)
class Guess:
    """Guesses the record's number from its letters."""

    def embed(self, apply, params, batch, rng):
        """Returns the guesses [B]."""
        return apply(params, batch.streams, rng).predictions["number"][:, 0], ()

    def loss(self, by_example, shared, batch):
        """Returns the squared errors."""
        return TaskLoss((by_example - batch.group / 100) ** 2, batch.mask)


def source(folder: str) -> WebDatasetSource:
    """Returns the data of `write_data`."""
    return WebDatasetSource(f"{folder}/{{0..{SHARDS - 1}}}.tar", cache_dir=f"{folder}/cache")


def get_config(folder: str) -> fdl.Config:
    """Returns the Experiment on the data of a folder; it goes on until it is stopped."""
    text = fdl.Config(TextTransform, tokenizer="bytes", context_length=16)
    return fdl.Config(
        Experiment,
        model=fdl.Config(Letters),
        task=fdl.Config(Guess),
        data=fdl.Config(Pipeline, fdl.Config(source, folder), {"text": text}, BATCH, max_bad_share=0.0, num_threads=1),
        optimizer=fdl.Config(Optimizer, learning_rate=1e-3, schedule=fdl.Config(Schedule, kind="constant")),
        balance={"ledger": fdl.Config(Ledger)},
        duration=10**8,
        keep=fdl.Config(Keep, every=10, last=2),
        log_every=1,
    )


def write_data(folder: pathlib.Path) -> None:
    """Writes the shards."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as file:
            for number in range(shard * EACH, (shard + 1) * EACH):
                for name, data in ((f"{number:04}.jpg", b"x"), (f"{number:04}.txt", f"record {number}".encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    file.addfile(info, BytesIO(data))


def start(
    workdir: pathlib.Path,
    data: pathlib.Path | None,
    *,
    processes: int = 1,
    devices: int = 1,
    settings: Sequence[str] = (),
    config: str = "",
) -> list[subprocess.Popen]:
    """Starts the job, or that of another config, by its command line; each process adds to workdir_0.log, ..."""
    cache = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONUNBUFFERED": "1"}
    command = [
        sys.executable,
        "-m",
        "mmjax",
        "train",
        "--config",
        config or f"{__file__}:{data}",
        "--workdir",
        str(workdir),
    ]
    command += [f"--set={setting}" for setting in settings]
    address = f"localhost:{free_port()}"
    running = []
    for number in range(processes):
        several = ["--coordinator", address, "--num-processes", str(processes), "--process-id", str(number)]
        with log(workdir, number).open("a") as output:
            options = {"cwd": ROOT, "env": device_env(devices) | cache, "stdout": output, "stderr": output}
            running.append(subprocess.Popen(command + several * (processes > 1), **options))
    return running


def log(workdir: pathlib.Path, process: int) -> pathlib.Path:
    """Returns the file with what a process of the job said."""
    return workdir.parent / f"{workdir.name}_{process}.log"


def logs(workdir: pathlib.Path) -> str:
    """Returns what all have said."""
    return "\n".join(path.read_text() for path in sorted(workdir.parent.glob(f"{workdir.name}_*.log")))


def last_step(workdir: pathlib.Path) -> int:
    """Returns the last step in the metrics, 0 before the first."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        lines = [line for line in file.read().split(b"\n")[:-1] if line.startswith(b'{"step": ')]
    return int(lines[-1].split(b",")[0].removeprefix(b'{"step": ')) if lines else 0


def wait_for_step(running: Sequence[subprocess.Popen], workdir: pathlib.Path, step: int, seconds: float = 600) -> None:
    """Returns when the job has logged step."""
    begin = time.monotonic()
    while last_step(workdir) < step:
        assert all(process.poll() is None for process in running), logs(workdir)
        assert time.monotonic() - begin < seconds, logs(workdir)
        time.sleep(0.02)


def finish(running: Sequence[subprocess.Popen], seconds: float) -> list[int]:
    """Returns the exit codes; what has not ended after seconds is killed and its code is -9."""
    end = time.monotonic() + seconds
    while any(process.poll() is None for process in running) and time.monotonic() < end:
        time.sleep(0.05)
    for process in running:
        process.kill()
    return [process.wait() for process in running]


def books(workdir: pathlib.Path) -> tuple[int, np.ndarray, int]:
    """Returns (step, counts [records], digest) of the newest whole checkpoint."""
    checkpoints = Checkpoints(workdir)
    step = checkpoints.newest_whole()
    with ocp.PyTreeCheckpointer() as checkpointer:
        folder = os.fspath(checkpoints.directory / str(step) / "state")
        tree = checkpointer.metadata(folder).item_metadata.tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)  # of any number of devices
        stored = checkpointer.restore(folder, restore_args=arguments)
    checkpoints.close()
    ledger = stored["balance"]["ledger"]
    return step, np.asarray(ledger["counts"]), int(ledger["digest"])


def plan(data: pathlib.Path, steps: int) -> tuple[np.ndarray, int]:
    """Returns (counts [records], digest) as the sampler plans them for a run that nothing disturbs."""
    sampler = Sampler(source(str(data)), seed=0)
    counts, digest = np.zeros(SHARDS * EACH, np.int64), 0
    for begin in range(0, steps, 1000):
        positions = np.arange(begin * BATCH, min(begin + 1000, steps) * BATCH)
        records = sampler.records(sampler.draws(positions))
        counts += np.bincount(records, minlength=len(counts))
        for row in (records.reshape(-1, BATCH) + 1) @ (np.arange(BATCH) + 1):
            digest = (digest * FACTOR + int(row)) % 2**32
    return counts, digest
