"""The same config on one device, on several, and on several processes: how far do the losses differ?

    python benchmarks/meshes.py --out docs/meshes.md

Each row trains configs/openmoji.py:smoke for 20 steps in float32 on simulated CPU devices. Writes a Markdown table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
ROWS = {  # name -> (processes, devices a process, mesh data x fsdp x tensor)
    "1 device": (1, 1, (1, 1, 1)),
    "8 devices: data 8": (1, 8, (8, 1, 1)),
    "8 devices: data 2 x fsdp 4": (1, 8, (2, 4, 1)),
    "8 devices: data 2 x fsdp 2 x tensor 2": (1, 8, (2, 2, 2)),
    "2 processes x 4 devices: data 8": (2, 4, (8, 1, 1)),
    "2 processes x 4 devices: data 2 x fsdp 2 x tensor 2": (2, 4, (2, 2, 2)),
}


def train(workdir: pathlib.Path, processes: int, devices: int, mesh: tuple[int, int, int], steps: int) -> list[float]:
    """Trains in processes of their own and returns the loss of every step."""
    command = [sys.executable, "train.py", "--config", "configs/openmoji.py:smoke", "--workdir", str(workdir)]
    command += ["--set", f"duration={steps}", "--set", "precision=float32", "--set", "keep.every=1000"]
    command += [f"--set=mesh.{axis}={size}" for axis, size in zip(("data", "fsdp", "tensor"), mesh, strict=True)]
    command += ["--set", "evaluations={}"]
    flags = f"--xla_force_host_platform_device_count={devices}"
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    several = ["--coordinator", address, "--num-processes", str(processes)] if processes > 1 else []
    running = []
    for number in range(processes):
        extra = [*several, "--process-id", str(number)] if several else []
        log = (workdir.parent / f"{workdir.name}_{number}.log").open("w")
        running.append(subprocess.Popen([*command, *extra], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT))
    for number, process in enumerate(running):
        if process.wait(timeout=900):
            raise SystemExit((workdir.parent / f"{workdir.name}_{number}.log").read_text())
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


def table(losses: dict[str, list[float]]) -> str:
    """Returns a Markdown table of each row's last loss and largest relative difference to the first row."""
    (first, reference), *_ = losses.items()
    lines = ["| devices | last loss | largest relative difference | at step |", "|---|---|---|---|"]
    for name, found in losses.items():
        differences = [abs(a - b) / abs(b) for a, b in zip(found, reference, strict=True)]
        worst = max(range(len(differences)), key=differences.__getitem__)
        shown = "(reference) | " if name == first else f"{differences[worst]:.1e} | {worst + 1}"
        lines.append(f"| {name} | {found[-1]:.6f} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table, and writes it where --out says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, row) in enumerate(ROWS.items()):
            losses[name] = train(pathlib.Path(folder) / str(number), *row, options.steps)
            print(name, losses[name][-1], flush=True)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "optax"))
    text = (
        f"# One config on many meshes\n\n`python benchmarks/meshes.py --out docs/meshes.md` "
        f"({options.steps} steps of configs/openmoji.py:smoke, float32, simulated CPU devices; {versions}).\n\n"
        f"{table(losses)}\n\nThe batches, the initial parameters and the noise are the same to the bit; the order of "
        "float32 sums across devices is what differs.\n"
    )
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
