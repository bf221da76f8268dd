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


def shares(parts: Mapping[str, float]) -> list[list[str]]:
    """Returns rows (what a step does, its share of the time, of which), of the parts that `mmjax plan` tells apart.

    'masked: image: attention core' is of the objective 'masked', 'image: attention core' of the encoder 'image'.
    """
    whole = sum(parts.values())
    inner: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for part, time in parts.items():
        name, _, rest = part.partition(": ")
        inner[name][rest.partition(": ")[0]] += time / whole
    dearest = sorted(inner, key=lambda name: -inner[name].total())
    return [[name, percent(inner[name].total()), of_which(inner[name])] for name in dearest]


def of_which(found: collections.Counter[str]) -> str:
    """Returns 'image 12.0 %, mim 0.3 %' of what has parts of its own."""
    return (
        ", ".join(f"{name} {percent(share)}" for name, share in found.most_common() if name) if len(found) > 1 else ""
    )


def percent(share: float) -> str:
    """Returns '12.0 %', of less than a tenth two digits that count."""
    return f"{100 * share:.1f} %" if share >= 1e-3 else f"{100 * share:.2g} %"


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
        "FLAVA's objectives share their passes: 'contrastive' is the pass over whole inputs and its loss; 'masked' the "
        "pass over inputs with parts hidden, which the four masked objectives have in common, and their heads; "
        "'matching' the joint encoder over mismatched pairs. Binding's share their encoders, and each pair has a loss "
        "of its own. 'zeros' is what JAX clears for what a scan over layers keeps for its backward pass, and for its "
        "gradients, in every pass; unrolled layers (scan=False) have none of it, and compile for longer.",
    ]
    for name, plan in plans.items():
        rows = shares(plan["parts"])
        parts += [f"`python -m mmjax {shlex.join(COMMANDS[name])}`", table([name, "share", "of which"], rows)]
    return "\n\n".join([*parts, made_by("plan_objectives")])


if __name__ == "__main__":
    main()
