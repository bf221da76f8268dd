"""SigLIP on TPU slices that one need not own: mmjax's plans beside the figures of big_vision's SigLIP trainer.

    python -m benchmarks.plan_siglip                                   # hours of compiling on two cores
    python -m benchmarks.plan_siglip --only 'B/16 v5e:16x16 16384'     # the rows whose names begin so
    python -m benchmarks.plan_siglip --big-vision CHECKOUT             # with the peer's own towers

Each row is one `python -m mmjax plan`, in a process of its own; what was planned before with the same code and versions
is taken from WORKDIR. The peer's figures are those recorded for its commit 0127fb6 with jax 0.10.2 and libtpu 0.0.52,
by the same reading of the compiler's program. Writes docs/results/plan_siglip.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("jax", "jaxlib", "flax", "optax", "libtpu")
TOWERS = ("image", "text")


CORE, MLP, FULL = ("core", "core"), ("mlp", "core"), ("full", "full")
"""What the image and the text tower compute again."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      variant, topology, batch: what is planned.
      peer: recorded of big_vision, in words.
      goal: figure of GOALS -> its bound; every row has to fit, too.
      remat, parts: of the image and the text tower; scan: of both; sets: settings of the config.
    """

    variant: str
    topology: str
    batch: int
    peer: str
    goal: Mapping[str, float]
    remat: tuple[str, str] = ("core", "none")
    scan: bool = True
    parts: tuple[int, int] = (4, 1)
    sets: tuple[str, ...] = ("mesh.fsdp=8",)

    @property
    def name(self) -> str:
        """Of the row, for --only."""
        return f"{self.variant} {self.topology} {self.batch} {self.setting}"

    @property
    def setting(self) -> str:
        """How it is set up, in a few words."""
        how = [
            "scanned" if self.scan else "unrolled",
            f"remat {self.remat[0]} and {self.remat[1]}",
            f"parts {self.parts[0]} and {self.parts[1]}",
        ]
        return ", ".join([*how, *self.sets])

    def command(self) -> list[str]:
        """Returns the arguments of `python -m mmjax`."""
        towers = []
        for tower, remat, parts in zip(TOWERS, self.remat, self.parts, strict=True):
            of = f"model.encoders.{tower}"
            towers += [f"{of}.remat={remat}", f"{of}.scan={self.scan}", f"{of}.batch_parts={parts}"]
        sets = [item for setting in (*towers, *self.sets) for item in ("--set", setting)]
        where = ["--config", f"configs/siglip.py:{self.variant}", "--topology", self.topology]
        return ["plan", *where, "--batch", str(self.batch), *sets, "--no-rate", "--json"]


GOALS: dict[str, tuple[str, Callable[[dict[str, Any], dict[str, Any]], float]]] = {
    "ms": ("≤ {:,} ms", lambda plan, peer: 1e3 * plan["compute_seconds"]),
    "GB": ("≤ {:g} GB", lambda plan, peer: plan["memory"]["needed"] / 1e9),
    "wire": ("≤ {:g} GB wire", lambda plan, peer: sent(plan)),
    "mfu": ("MFU ≥ {:g} %", lambda plan, peer: 100 * plan["mfu_without_communication"]),
    "compiled": ("compiles no slower", lambda plan, peer: plan["compile_seconds"] / peer["compile_seconds"]),
}
"""Figure -> (goal in words, (plan, the peer's compiled here) -> value): at most the bound, MFU at least."""

_MICRO = {count: ("mesh.fsdp=8", f"micro_batches={count}") for count in (16, 32, 64)}
POD, SMALL = "v5e:16x16", "v5e:4x4"
ROWS = (
    Row("B/16", POD, 16_384, "compiled in 61 s (scan, full remat)", {"compiled": 1.0}, CORE, parts=(1, 1)),
    Row("B/16", POD, 16_384, "98 ms, 6.60 GB (no scan, FSDP)", {"ms": 92, "GB": 6.6}, scan=False),
    Row("B/16", POD, 16_384, "131 ms, 0.99 GB (scan, full remat)", {"ms": 115, "GB": 3}, FULL, scan=False),
    Row("B/16", POD, 32_768, "273 ms, 12.8 GB", {"ms": 225, "GB": 8}, MLP, scan=False),
    Row("B/16", SMALL, 16_384, "3,896 ms, 15.5 GB", {"ms": 2_200, "GB": 8}, scan=False, sets=_MICRO[16]),
    Row("B/16", SMALL, 32_768, "does not fit", {"ms": 4_500}, CORE, sets=_MICRO[32]),
    Row("L/16", POD, 16_384, "404 ms, 2.03 GB, 9.2 GB wire", {"ms": 375, "wire": 4}, MLP, sets=("mesh.fsdp=4",)),
    Row("L/16", SMALL, 16_384, "does not fit", {"mfu": 33}, MLP, sets=_MICRO[16]),
    Row("L/16", SMALL, 32_768, "does not fit", {"mfu": 33}, MLP, sets=_MICRO[32]),
    Row("B/16", POD, 1_048_576, "", {"GB": 16}, sets=_MICRO[64]),
)


def main() -> None:
    """Parses the command line, plans, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name begins so; the page then holds them alone")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/plan_siglip"))
    parser.add_argument("--big-vision", type=pathlib.Path, help="a checkout of google-research/big_vision")
    options = parser.parse_args()
    rows = [row for row in ROWS if row.name.startswith(options.only)]
    if not rows:
        parser.exit(2, f"benchmarks.plan_siglip: no row begins with {options.only!r}; see ROWS in the file.\n")
    options.workdir.mkdir(parents=True, exist_ok=True)
    checkout = [str(options.big_vision.absolute())] if options.big_vision else []
    # next to the first row, which is about compiling: an hour later the machine may be another
    peer = made(["-m", "benchmarks.big_vision_step", "B/16", POD, "16384", *checkout], options.workdir)
    plans = []
    for row in rows:
        plans.append(made(["-m", "mmjax", *row.command()], options.workdir))
        print(line(row, plans[-1], peer), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "plan_siglip.md").write_text(document(rows, plans, peer, bool(checkout)))


def made(command: Sequence[str], workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the JSON object that python prints for command; the same of the same code is run once."""
    sources = sorted(
        [*ROOT.glob("mmjax/**/*.py"), *ROOT.glob("benchmarks/big_vision_st*.py"), *ROOT.glob("configs/*.py")]
    )
    code = b"".join(path.read_bytes() for path in sources)
    key = hashlib.sha256(repr((command, versions())).encode() + code).hexdigest()[:16]
    store = workdir / f"{key}.json"
    if not store.exists():
        here = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        run = [sys.executable, *command]
        done = subprocess.run(run, cwd=ROOT, env=os.environ | here, stdout=subprocess.PIPE, text=True)
        if done.returncode not in (0, 1):  # 1: it does not fit, and says so
            raise SystemExit(f"`python {shlex.join(command)}` failed, see above.")
        store.write_text(json.dumps(json.loads(done.stdout)))
    return json.loads(store.read_text())


def line(row: Row, plan: dict[str, Any], peer: dict[str, Any]) -> str:
    """Returns the row of the table."""
    fits = plan["fits"]
    found = {name: GOALS[name][1](plan, peer) for name in row.goal} if fits else {}
    within = [value >= row.goal[name] if name == "mfu" else value <= row.goal[name] for name, value in found.items()]
    cells = [
        f"{row.variant}, {plan['devices']}, {row.batch:,}",
        row.peer,
        ", ".join(["fits", *(GOALS[name][0].format(bound) for name, bound in row.goal.items())]),
        "reached" if fits and all(within) else "MISSED",
        f"{1e3 * plan['compute_seconds']:,.1f} ms" if fits else "does not fit",
        f"{plan['memory']['needed'] / 1e9:.2f} GB",
        f"{sent(plan):.2f} GB" if fits else "",
        f"{100 * plan['mfu_without_communication']:.1f} %" if fits else "",
        f"{100 * plan['mfu_with_communication']:.1f} %" if fits else "",
        f"{plan['compile_seconds']:.0f} s",
        row.setting,
    ]
    return "| " + " | ".join(cells) + " |"


def sent(plan: Mapping[str, Any]) -> float:
    """Returns the 10⁹ bytes that one device sends in a step."""
    return sum(one["wire_bytes"] for one in plan["collectives"].values()) / 1e9


HEADS = (
    "model, chips, batch",
    "big_vision, recorded",
    "goal",
    "",
    "step",
    "needed HBM",
    "wire",
    "MFU, computation alone",
    "MFU, no overlap",
    "compiled in",
    "setting",
)


def document(rows: Sequence[Row], plans: Sequence[dict[str, Any]], peer: dict[str, Any], real: bool) -> str:
    """Returns the Markdown page; real tells whether the peer's towers are its own."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    lines += [line(row, plan, peer) for row, plan in zip(rows, plans, strict=True)]
    parts = [
        "# SigLIP ViT/16 on TPU v5e, as the compiler sees it",
        "224 pixels, 64 text tokens, vocabulary 32,000. Step: the compiler's cycles at the published clock, without "
        "communication. Needed HBM: arguments, outputs, temporaries and code of one device (10⁹ bytes). Wire: what one "
        "device sends in a step by ring algorithms. Compiled in: seconds on the clock, which other work on the machine "
        "lengthens. Nothing here was run on a TPU.",
        "\n".join(lines),
    ]
    towers = "big_vision's towers" if real else "Towers like big_vision's (`benchmarks/big_vision_style.py`)"
    parts.append(
        f"{towers}, B/16 at 16,384 on {POD}, scanned with full remat, compiled by the same run on the same machine: "
        f"{1e3 * peer['compute_seconds']:,.1f} ms, {peer['needed'] / 1e9:.2f} GB, "
        f"{peer['wire_bytes'] / 1e9:.2f} GB wire, compiled in {peer['compile_seconds']:.0f} s. Recorded of big_vision "
        "itself, on another machine: 131 ms, 0.99 GB, 61 s."
    )
    return "\n\n".join([*parts, made_by("plan_siglip")])


def made_by(name: str) -> str:
    """Returns the last line of the page that benchmarks.<name> makes."""
    found = ", ".join(f"{package} {version}" for package, version in versions().items())
    return f"Made by `python -m benchmarks.{name}` (Python {platform.python_version()}, {found}).\n"


def versions() -> dict[str, str]:
    """Returns package -> version of what the figures depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


if __name__ == "__main__":
    main()
