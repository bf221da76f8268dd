"""From the command to the end of the first step: a cold and a warm compilation cache, layers scanned and unrolled.

    python benchmarks/first_step.py [--variant B/32] [--batch 2] [--turns 3]

Runs `train.py` itself on configs/clip.py with a ViT of size B for one step, on generated pictures, and takes the time
until metrics.jsonl has its first record. Each way has a compilation cache of its own (JAX_COMPILATION_CACHE_DIR):
empty in its first run (cold), then as that run left it (warm). 'unrolled' is the same with scan=False, every layer
compiled for itself, as big_vision's models are. Ways take turns; medians are printed, and the ratios of unrolled to
scanned. No checkpoint is written in the time that is measured; the processes are ended then. --json FILE writes the
figures there too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).parent.parent
UNROLLED = [f"--set=model.encoders.{name}.scan=False" for name in ("image", "text")]


def pictures(folder: Path, count: int) -> str:
    """Writes count pictures with captions and returns the folder."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), rng.integers(0, 256, (256, 256, 3)).astype(np.uint8))
        (folder / f"{number:04d}.txt").write_text(f"picture number {number}")
    return str(folder)


def first_step(root: Path, variant: str, data: str, batch: int, cache: Path, extra: list[str]) -> float:
    """Returns the seconds from the command until the first record of metrics."""
    with tempfile.TemporaryDirectory(dir=root) as workdir:
        command = [sys.executable, str(ROOT / "train.py"), f"--config={ROOT}/configs/clip.py:{variant}"]
        command += [f"--data={data}", f"--workdir={workdir}", f"--set=data.batch_size={batch}", "--set=log_every=1"]
        command += ["--set=duration='1 steps'", "--set=optimizer.schedule.warmup=0", *extra]
        settings = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
        log, metrics = root / "log.txt", Path(workdir) / "metrics.jsonl"
        start = time.perf_counter()
        with log.open("w") as out:
            process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=root)
        try:
            while not (metrics.exists() and metrics.stat().st_size):
                if process.poll() is not None:
                    raise SystemExit(f"train.py ended before its first step:\n{log.read_text()}")
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()


def rows(found: Mapping[tuple[str, str], Sequence[float]]) -> list[dict[str, Any]]:
    """Returns the figures for `benchmarks.report`: seconds scanned beside unrolled, and their ratio, without a goal."""
    table = []
    for heat in ("cold", "warm"):
        mine, other = found["scanned", heat], found["unrolled", heat]
        row = {"what": f"command to first step, {heat} cache", "unit": "s", "ours": statistics.median(mine)}
        row |= {"peer": "mmjax, unrolled", "theirs": statistics.median(other)}
        table.append(row | {"ratio": statistics.median(a / b for a, b in zip(mine, other, strict=True))})
    return table


def main() -> None:
    """Takes the turns and prints what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="B/32", help="of configs/clip.py")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    ways = {"scanned": [], "unrolled": UNROLLED}
    found: dict[tuple[str, str], list[float]] = {(way, heat): [] for heat in ("cold", "warm") for way in ways}
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = pictures(root / "pictures", 64)
        for turn in range(options.turns):
            for way in sorted(ways, reverse=turn % 2 == 1):
                cache = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root)))
                for heat in ("cold", "warm"):
                    seconds = first_step(root, options.variant, data, options.batch, cache, ways[way])
                    found[way, heat].append(seconds)
    print(f"CLIP {options.variant}, batch {options.batch}, {os.cpu_count()} cores, {options.turns} turns; seconds")
    for (way, heat), seconds in found.items():
        print(f"{way:9} {heat}  {statistics.median(seconds):8.1f}  ({', '.join(f'{s:.1f}' for s in seconds)})")
    for heat in ("cold", "warm"):
        pairs = zip(found["unrolled", heat], found["scanned", heat], strict=True)
        print(f"unrolled / scanned, {heat}: {statistics.median(other / mine for other, mine in pairs):.2f}")
    if options.json:
        options.json.write_text(json.dumps(rows(found)))


if __name__ == "__main__":
    main()
