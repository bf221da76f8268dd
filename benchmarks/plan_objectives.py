"""FLAVA and binding at published size on a TPU slice that one need not own: do they fit, and what each objective costs.

    python -m benchmarks.plan_objectives                               # about ten minutes of compiling on two cores

Each row is one `python -m mmjax plan`; what was planned before with the same code and versions is taken from
WORKDIR. Writes docs/results/plan_objectives.md.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.plan_siglip import POD, ROOT, made, made_by, sent

COMMANDS = {
    "FLAVA": ("plan", "--config", "configs/flava.py:base", "--topology", POD),
    "binding": ("plan", "--config", "configs/bind.py:base", "--topology", POD),
}


def main() -> None:
    """Parses the command line, plans, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/plan_objectives"))
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    plans = {}
    for name, command in COMMANDS.items():
        plans[name] = made(["-m", "mmjax", *command, "--no-rate", "--json"], options.workdir)
        print(name, summary(plans[name]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "plan_objectives.md").write_text(document(plans))


def summary(plan: Mapping[str, Any]) -> list[str]:
    """Returns the cells of a plan's row."""
    return [
        f"{plan['parameters']:,}",
        f"{plan['batch_size']:,}",
        "yes" if plan["fits"] else "NO",
        f"{plan['memory']['needed'] / 1e9:.2f} of {plan['memory']['capacity'] / 1e9:.2f} GB",
        f"{1e3 * plan['compute_seconds']:,.1f} ms",
        f"{sent(plan):.2f} GB, {1e3 * plan['communication_seconds']:,.1f} ms",
        f"{100 * plan['mfu_without_communication']:.1f} to {100 * plan['mfu_with_communication']:.1f} %",
    ]


def shares(parts: Mapping[str, float]) -> dict[str, float]:
    """Returns what a step does -> its share of the time, of the parts that `mmjax plan` tells apart, the dearest first.

    'masked: image: attention core' is of the objective 'masked', 'image: attention core' of the encoder 'image'.
    """
    total: collections.Counter[str] = collections.Counter()
    for part, time in parts.items():
        total[part.partition(":")[0]] += time
    whole = sum(total.values())
    return {name: time / whole for name, time in total.most_common() if time >= 5e-4 * whole}


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def document(plans: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the Markdown page."""
    heads = ["", "parameters", "batch", "fits", "needed HBM", "step", "sent by a device", "MFU"]
    parts = [
        f"# FLAVA and binding at published size on TPU {POD}, as the compiler sees them",
        "Step: the compiler's cycles at the published clock, without communication. MFU: with all of the communication "
        "beside the computation, and with none of it hidden. Nothing here was run on a TPU.",
        table(heads, [[name, *summary(plan)] for name, plan in plans.items()]),
        "## Share of the time of a step",
    ]
    for name, plan in plans.items():
        rows = [[what, f"{100 * share:.1f} %"] for what, share in shares(plan["parts"]).items()]
        parts += [f"`python -m mmjax {shlex.join(COMMANDS[name])}`", table([name, "share"], rows)]
    return "\n\n".join([*parts, made_by("plan_objectives")])


if __name__ == "__main__":
    main()
