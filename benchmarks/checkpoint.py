"""Checkpoints of CLIP ViT-B/32 (151 M parameters) with AdamW's moments: how long the loop is blocked, and a restart.

    python benchmarks/checkpoint.py [--peer-python /path/to/venv/bin/python] [--turns 5] [--saves 3] [--folder DIR]

Saves a state of 3 x 151 M random float32 values (1.8 GB) through `mmjax.training.checkpoint.Checkpoints` as the loop
does, its list of checksums included, then opens the folder as a restart does (which reads every file against that
list) and restores. It prints, in seconds:

- blocked: what a call of `save` takes, the first of a process and later ones, each begun when the one before is done;
- whole: from that call until the checkpoint stands under its name, in the background of training;
- restore: from opening the folder to arrays that are ready. The files are in the system's page cache, as torch's are.

The peer is torch.save and torch.load of float32 tensors of the same shapes, in turns with mmjax; it needs an
interpreter that has torch (--peer-python). A ratio is the median of the ratios within one turn; processor time, of
all threads, is what other work on the machine disturbs least. Goals: no save blocks
longer than 0.3 s, a restore takes at most 1.5 times torch.load; whether they are reached is printed beside the figures.

What compression would do is measured too: Orbax writes the state once with zstd and once without, each turn, and waits.
The folder needs 10 GB; it is a temporary one, and is empty in the end. --json FILE writes the figures there too.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.core.trees import flatten
from mmjax.core.types import Stream
from mmjax.training import state as states
from mmjax.training.checkpoint import Checkpoints, Keep
from mmjax.training.state import TrainState

ROOT = Path(__file__).parent.parent
META = {"config": {}, "preprocess": {}}
BLOCKS, RESTORES = 0.3, 1.5
"""Goals: the seconds that a save may block, and a restore's time over torch.load's."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What one way of writing the state took: bytes on disk, seconds, and processor seconds of all threads."""

    size: int
    seconds: float
    cpu: float


@dataclasses.dataclass(frozen=True)
class Turn:
    """Seconds of one turn: each save, until it was whole, and the restore; bytes on disk; the peer's seconds.

    plain and zstd are what writing without and with compression took.
    """

    blocked: list[float]
    whole: list[float]
    restore: float
    restore_cpu: float
    size: int
    peer: dict[str, float] | None
    plain: Written
    zstd: Written


def clip_state() -> TrainState:
    """Returns a state of CLIP ViT-B/32 and AdamW, every float32 leaf random normal (which hardly compresses)."""
    spec = importlib.util.spec_from_file_location("clip", ROOT / "configs/clip.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("B/32")
    model, optimizer = fdl.build(config.model), fdl.build(config.optimizer)
    example = {
        "image": Stream(jnp.zeros((1, 224, 224, 3), jnp.uint8), jnp.ones((1, 1), bool)),
        "text": Stream(jnp.zeros((1, module.CONTEXT_LENGTH), jnp.int32), jnp.ones((1, module.CONTEXT_LENGTH), bool)),
    }
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), example)["params"])
    transformation = optimizer.build(shapes, optimizer.learning_rate)
    abstract = jax.eval_shape(lambda params: states.create(params, transformation, None), shapes)
    rng = np.random.default_rng(0)

    def fill(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.dtype != jnp.float32:
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) * np.float32(0.02))

    mesh = make_mesh(MeshShape())
    state = jax.device_put(jax.tree.map(fill, abstract), NamedSharding(mesh, PartitionSpec()))
    return jax.block_until_ready(state)


def save(folder: Path, state: TrainState, saves: int) -> tuple[list[float], list[float]]:
    """Returns the seconds that each of some saves blocks, and the seconds until each is whole."""
    blocked, whole = [], []
    checkpoints = Checkpoints(folder, Keep(last=1))
    for step in range(1, saves + 1):
        state = state.replace(step=jnp.asarray(step, jnp.int32))
        start = time.perf_counter()
        checkpoints.save(state, META)
        blocked.append(time.perf_counter() - start)
        checkpoints.wait()
        whole.append(time.perf_counter() - start)
    checkpoints.close()
    return blocked, whole


def restore(folder: Path, abstract: TrainState) -> tuple[float, float]:
    """Returns the seconds that a restart takes from opening the folder to the state on the device, and of processor."""
    start, cpu = time.perf_counter(), time.process_time()
    checkpoints = Checkpoints(folder, Keep(last=1))
    found = jax.block_until_ready(checkpoints.restore(abstract))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    checkpoints.close()
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(found.params))
    return seconds, cpu


def written(folder: Path, state: TrainState, compress: bool) -> Written:
    """Writes state through Orbax alone, waits for it, and removes it again."""
    start, cpu = time.perf_counter(), time.process_time()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=compress)) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(state))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    size = bytes_below(folder)
    shutil.rmtree(folder)
    return Written(size, seconds, cpu)


def bytes_below(folder: Path) -> int:
    """Returns the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def torch_seconds(python: str, file: Path, state: TrainState) -> dict[str, float]:
    """Returns the seconds of torch.save and torch.load of the same shapes, run by another interpreter."""
    shapes = {name: leaf.shape for name, leaf in flatten(state).items() if leaf.dtype == jnp.float32}
    script = Path(__file__).with_name("torch_checkpoint.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, str(script), str(file)]
    try:
        run = subprocess.run(command, input=json.dumps(shapes), capture_output=True, text=True, env=environment)
    except OSError as error:
        raise SystemExit(f"--peer-python {python} cannot be run: {error.strerror}.") from error
    file.unlink(missing_ok=True)
    if run.returncode:
        raise SystemExit(f"torch.save and torch.load failed under {python}:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def one_turn(root: Path, state: TrainState, saves: int, python: str | None) -> Turn:
    """Saves, restores and lets the peer do the same."""
    folder = root / "run"
    blocked, whole = save(folder, state, saves)
    size = bytes_below(folder)
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    seconds, cpu = restore(folder, abstract)
    shutil.rmtree(folder)
    gc.collect()
    plain, zstd = (written(root / "orbax", state, compress) for compress in (False, True))
    peer = torch_seconds(python, root / "peer.pt", state) if python else None
    return Turn(blocked, whole, seconds, cpu, size, peer, plain, zstd)


def lines(state: TrainState, turns: Sequence[Turn]) -> list[str]:
    """Returns what is printed."""
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    later = [seconds for turn in turns for seconds in turn.blocked[1:]]
    found = [
        f"{count / 1e6:.1f} M parameters + AdamW, {turns[0].size / 1e9:.2f} GB on disk, {os.cpu_count()} cores, "
        f"{len(turns)} turns of {len(turns[0].blocked)} saves; seconds: median (longest)",
        f"save blocks, the first     {_median([turn.blocked[0] for turn in turns])}",
    ]
    if later:
        found.append(f"save blocks, later ones    {_median(later)}")
    longest = max(seconds for turn in turns for seconds in turn.blocked)
    found.append(f"the longest                {longest:7.3f}, goal {BLOCKS}: {_word(longest <= BLOCKS)}")
    found.append(f"a save is whole after      {_median([seconds for turn in turns for seconds in turn.whole])}")
    found.append(f"restore                    {_median([turn.restore for turn in turns])}")
    smaller = 1 - turns[0].zstd.size / turns[0].plain.size
    slower = statistics.median(turn.zstd.seconds / turn.plain.seconds for turn in turns)
    dearer = statistics.median(turn.zstd.cpu / turn.plain.cpu for turn in turns)
    found.append(
        f"zstd / no compression      {slower:7.2f} x time, {dearer:.2f} x processor time, {smaller:.1%} fewer bytes"
    )
    if turns[0].peer is None:
        return [*found, "torch left out: no --peer-python names an interpreter that has it"]
    found.append(f"torch.save (blocks)        {_median([turn.peer['save'] for turn in turns])}")
    found.append(f"torch.load                 {_median([turn.peer['load'] for turn in turns])}")
    wall = statistics.median(turn.restore / turn.peer["load"] for turn in turns)
    cpu = statistics.median(turn.restore_cpu / turn.peer["load_cpu"] for turn in turns)
    goal = f"goal {RESTORES}: {_word(wall <= RESTORES)}"
    return [*found, f"restore / torch.load       {wall:7.2f}, {goal}; of processor time {cpu:.2f}"]


def rows(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Returns the same for `benchmarks.report`: seconds, their ratio to the peer's, the goals."""
    longest = [max(turn.blocked) for turn in turns]
    plain, zstd = ([getattr(turn, way).seconds for turn in turns] for way in ("plain", "zstd"))
    blocks = {"what": "the longest that a save blocks", "unit": "s", "ours": max(longest)}
    blocks |= {"goal": f"≤ {BLOCKS} s", "reached": max(longest) <= BLOCKS}
    restores = {"what": "restore", "unit": "s", "ours": statistics.median(turn.restore for turn in turns)}
    if turns[0].peer is not None:
        saved, loaded = ([turn.peer[name] for turn in turns] for name in ("save", "load"))
        ratio = _ratio([turn.restore for turn in turns], loaded)
        blocks |= {"peer": "torch.save", "theirs": statistics.median(saved), "ratio": _ratio(longest, saved)}
        restores |= {"peer": "torch.load", "theirs": statistics.median(loaded), "ratio": ratio}
        restores |= {"goal": f"≤ {RESTORES}", "reached": ratio <= RESTORES}
    writes = {"what": "Orbax alone writes, uncompressed", "unit": "s", "ours": statistics.median(plain)}
    writes |= {"peer": "the same with zstd", "theirs": statistics.median(zstd), "ratio": _ratio(plain, zstd)}
    return [blocks, restores, writes]


def _ratio(mine: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


def _word(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def _median(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):7.3f} ({max(seconds):.3f})"


def main() -> None:
    """Takes the turns and prints what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="an interpreter that has torch")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--saves", type=int, default=3, help="of each turn")
    parser.add_argument("--folder", help="where the temporary folder is made; default: the system's place for them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    state = clip_state()
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        turns = [one_turn(Path(root), state, options.saves, options.peer_python) for _ in range(options.turns)]
    print("\n".join(lines(state, turns)))
    if options.json:
        options.json.write_text(json.dumps(rows(turns)))


if __name__ == "__main__":
    main()
