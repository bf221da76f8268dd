"""A training step of CLIP ViT-B/32, batch 16, float32, on the CPU: mmjax against open_clip, in alternating runs.

    python benchmarks/train_step.py --peer-python /path/to/venv/bin/python [--turns 5] [--steps 1] [--batch 16]

mmjax takes the step that the trainer compiles (`mmjax.training.step.train_step` with model, task and optimizer of
configs/clip.py:B/32), once with the config's recomputation (remat='core') and once without, as open_clip's default is.
open_clip takes its ViT-B-32 with ClipLoss and AdamW; it runs in the interpreter of --peer-python, which needs
open_clip_torch, and waits while mmjax runs. Batches are random and lie in memory. Both use all cores. Each way takes
one step before the clock runs. It prints the median seconds of a step, and as a ratio the median of the ratios within
one turn; less than 1 is faster than open_clip, which is the goal. --json FILE writes the figures there too.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.types import Batch, Stream
from mmjax.training import state as states
from mmjax.training.experiment import build
from mmjax.training.step import train_step
from mmjax.training.trainer import apply_of

ROOT = Path(__file__).parent.parent
PEER = "open_clip"


def clip_module() -> ModuleType:
    """Returns configs/clip.py."""
    spec = importlib.util.spec_from_file_location("clip", ROOT / "configs/clip.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_batch(size: int, context_length: int, vocab_size: int) -> Batch:
    """Returns size random pairs, whose captions fill the context."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, 224, 224, 3), dtype=np.uint8)
    texts = rng.integers(1, vocab_size - 2, (size, context_length), dtype=np.int32)
    streams = {"image": Stream(images, np.ones((size, 1), bool)), "text": Stream(texts, np.ones(texts.shape, bool))}
    return jax.device_put(Batch(streams, np.arange(size, dtype=np.int32), np.ones(size, bool)))


class Ours:
    """mmjax's step with its state; called with a number of steps it gives the seconds of one."""

    def __init__(self, batch_size: int, remat: str | None):
        clip = clip_module()
        config = clip.get_config("B/32")
        config.precision = "float32"
        if remat is not None:
            for encoder in config.model.encoders.values():
                encoder.remat = remat
        experiment = build_without_data(config)
        model, optimizer = experiment["model"], experiment["optimizer"]
        self.batch = random_batch(batch_size, clip.CONTEXT_LENGTH, clip.VOCAB_SIZE)
        params = jax.jit(lambda: model.init(jax.random.key(0), self.batch.streams)["params"])()
        transformation = optimizer.build(params, lambda step: jnp.asarray(optimizer.learning_rate))
        make_state = functools.partial(states.create, optimizer=transformation, trainable=None)
        self.state = jax.jit(make_state)(params)
        step = functools.partial(
            train_step,
            apply=apply_of(model),
            task=experiment["task"],
            optimizer=transformation,
            learning_rate=lambda step: jnp.asarray(optimizer.learning_rate),
            trainable=optimizer.trainable(params),
            seed=0,
        )
        self.step: Callable[..., Any] = jax.jit(step, donate_argnums=0)

    def __call__(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self.state, metrics = self.step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        return (time.perf_counter() - start) / steps


def build_without_data(config: Any) -> dict[str, Any]:
    """Returns model, task and optimizer of a config, its matmuls in float32 as training.experiment.build sets them."""
    config.data = None
    experiment = build(config)
    return {name: getattr(experiment, name) for name in ("model", "task", "optimizer")}


class OpenClip:
    """open_clip's step in a process of its own; called as `Ours`."""

    def __init__(self, python: str, batch_size: int):
        script = Path(__file__).with_name("open_clip_step.py")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [python, str(script), str(batch_size), str(len(os.sched_getaffinity(0)))]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        except OSError as error:
            raise SystemExit(f"--peer-python {python} cannot be run: {error.strerror}.") from error

    def __call__(self, steps: int) -> float:
        try:
            self.process.stdin.write(f"{steps}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its output, which is then empty, is looked at next
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("open_clip's step failed; its own words are above. It needs open_clip_torch.")
        return float(line)

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def rows(found: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Returns the figures for `benchmarks.report`: seconds a step of each way of ours, the ratio, the goal."""
    table = []
    for way in (name for name in found if name != PEER):
        row = {"what": way, "unit": "s a step", "ours": statistics.median(found[way])}
        if PEER in found:
            ratio = statistics.median(mine / other for mine, other in zip(found[way], found[PEER], strict=True))
            row |= {"peer": PEER, "theirs": statistics.median(found[PEER]), "ratio": ratio}
            row |= {"goal": "≤ 1.0", "reached": ratio <= 1}
        table.append(row)
    return table


def main() -> None:
    """Takes the turns and prints what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="an interpreter that has open_clip_torch")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="of each way in each turn")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    ways: dict[str, Callable[[int], float]] = {
        "mmjax, remat='core'": Ours(options.batch, None),
        "mmjax, remat='none'": Ours(options.batch, "none"),
    }
    if options.peer_python:
        ways["open_clip"] = OpenClip(options.peer_python, options.batch)
    for way in ways.values():
        way(1)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.turns):
        for name in sorted(ways, reverse=turn % 2 == 1):
            found[name].append(ways[name](options.steps))
    print(f"ViT-B/32, batch {options.batch}, float32, {os.cpu_count()} cores, {options.turns} turns; seconds a step")
    for name, seconds in found.items():
        line = f"{name:22}{statistics.median(seconds):8.3f}"
        if "open_clip" in found:
            ratios = [mine / other for mine, other in zip(seconds, found["open_clip"], strict=True)]
            line += f"  x open_clip {statistics.median(ratios):5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(line)
    if options.json:
        options.json.write_text(json.dumps(rows(found)))
    if options.peer_python:
        ways["open_clip"].close()
    else:
        print("open_clip left out: no --peer-python names an interpreter that has open_clip_torch")


if __name__ == "__main__":
    main()
