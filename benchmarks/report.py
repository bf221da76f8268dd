"""The benchmarks that have a peer, one after another, and one table of what they found: ours, the peer's, the goal.

    python -m benchmarks.report --peer-python /path/to/venv/bin/python    # an hour on two cores that do nothing else
    python -m benchmarks.report --peer-python ... --only input            # measures that one again
    python -m benchmarks.report --page                                    # the page of what was measured; nothing runs

Each benchmark is run as its own page of help says, with --json, and what it found is kept as WORKDIR/NAME.json. What
was measured before with the same code and versions is taken from there; --only measures anew what it names. The page
says of every benchmark what it was measured with. Writes docs/results/benchmarks.md.

The peer's interpreter needs torch, torchvision, open_clip_torch 3.3.0, webdataset 0.2.86 and pandas.
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
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from mmjax.core.errors import UserError, listed, one_of

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "simplejpeg")
PEERS = ("torch", "torchvision", "open_clip_torch", "webdataset")
HEADS = ("benchmark", "what", "mmjax", "peer", "the peer's", "ratio", "goal", "")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One script of this folder.

    Attributes:
      about: what it measures, in words.
      code: patterns of the files below the root whose change makes what was measured old; the script is always one.
      peer: whether it needs the peer's interpreter.
    """

    about: str
    code: tuple[str, ...]
    peer: bool = True


_MODEL = ("configs/clip.py", "mmjax/model.py", *(f"mmjax/{name}/*.py" for name in ("core", "layers", "encoders")))
_TRAIN = (*_MODEL, *(f"mmjax/{name}/*.py" for name in ("fusion", "losses", "tasks", "training")))
BENCHMARKS = {
    "input": Benchmark(
        "2,000 JPEGs of about 500 x 375 pixels, decoded, cropped to 224, with tokens, in the exact order",
        ("benchmarks/open_clip_input.py", "mmjax/core/*.py", "mmjax/data/**/*.py"),
    ),
    "checkpoint": Benchmark(
        "CLIP ViT-B/32, 151 M parameters, with AdamW's moments", ("benchmarks/torch_checkpoint.py", *_TRAIN)
    ),
    "train_step": Benchmark(
        "a step of CLIP ViT-B/32, batch 16, float32, on the CPU", ("benchmarks/open_clip_step.py", *_TRAIN)
    ),
    "first_step": Benchmark(
        "from the command to the first record of metrics, CLIP ViT-B/32",
        (*_TRAIN, "train.py", "mmjax/cli.py", "mmjax/data/**/*.py"),
        peer=False,
    ),
}


def main() -> None:
    """Parses the command line, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="an interpreter that has open_clip_torch, webdataset and torch")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"measure these again; of {listed(BENCHMARKS)}")
    parser.add_argument("--page", action="store_true", help="write the page of what is in WORKDIR, whatever its code")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results", help="folder of the page")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/benchmarks"))
    options = parser.parse_args()
    try:
        made(options)
    except UserError as error:
        parser.exit(2, f"benchmarks.report: {error}\n")


def made(options: argparse.Namespace) -> None:
    """Measures what is to be measured and writes the page of all that WORKDIR holds."""
    for name in options.only or ():
        one_of(name, BENCHMARKS, "--only")
    names = [] if options.page else options.only or list(BENCHMARKS)
    lacking = [name for name in names if BENCHMARKS[name].peer and not options.peer_python]
    if lacking:
        raise UserError(f"--peer-python is needed for {listed(lacking)}: an interpreter that has {listed(PEERS)}.")
    options.workdir.mkdir(parents=True, exist_ok=True)
    for name in names:
        python = options.peer_python if BENCHMARKS[name].peer else None
        measured(name, python, options.workdir / f"{name}.json", fresh=bool(options.only))
    known = {name: options.workdir / f"{name}.json" for name in BENCHMARKS}
    found = {name: json.loads(path.read_text()) for name, path in known.items() if path.exists()}
    if not found:
        raise UserError(f"{options.workdir} holds nothing that was measured.")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "benchmarks.md").write_text(text := document(found))
    print(text)


def measured(name: str, python: str | None, store: pathlib.Path, fresh: bool) -> None:
    """Runs a benchmark and keeps its rows with what they depend on; not where the same is kept already.

    Raises:
      UserError: the peer's interpreter lacks something, or the benchmark fails.
    """
    peers = versions_at(python) if python else {}
    made_with = {"code": code_of(name), "versions": versions(), "peers": peers}
    if store.exists() and not fresh and made_with.items() <= json.loads(store.read_text()).items():
        return
    machine = {"cores": os.cpu_count(), "processor": processor(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        rows = pathlib.Path(folder) / "rows.json"
        command = [sys.executable, f"benchmarks/{name}.py", *(["--peer-python", python] if python else [])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        print(f"== {name}", flush=True)
        done = subprocess.run([*command, "--json", str(rows)], cwd=ROOT, env=environment)
        if done.returncode:
            raise UserError(f"benchmarks/{name}.py ended with {done.returncode}, see above.")
        store.write_text(json.dumps(made_with | machine | {"rows": json.loads(rows.read_text())}, indent=1))


def code_of(name: str) -> str:
    """Returns a digest of the files that what a benchmark finds depends on.

    Raises:
      UserError: a pattern that matches no file.
    """
    digest = hashlib.sha256()
    for pattern in (f"benchmarks/{name}.py", *BENCHMARKS[name].code):
        files = sorted(ROOT.glob(pattern))
        if not files:
            raise UserError(f"{pattern!r}, which the benchmark {name} depends on, matches no file.")
        for path in files:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Returns what we run on -> its version."""
    return {"Python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def versions_at(python: str) -> dict[str, str]:
    """Returns package -> version of the peer's environment.

    Raises:
      UserError: an interpreter that cannot be run, or that lacks one of PEERS.
    """
    ask = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run([python, "-c", ask, *PEERS], capture_output=True, text=True, env=environment)
    except OSError as error:
        raise UserError(f"--peer-python {python} cannot be run: {error.strerror}.") from error
    if done.returncode:
        raise UserError(f"--peer-python {python} lacks one of {listed(PEERS)}: {done.stderr.splitlines()[-1]}.")
    return json.loads(done.stdout)


def processor() -> str:
    """Returns the name of the processor, or its architecture where the system does not tell."""
    told = pathlib.Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def document(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the Markdown page of benchmark -> what `measured` kept."""
    table = ["| " + " | ".join(HEADS) + " |", "|---|---|---:|---|---:|---:|---|---|"]
    for name, kept in found.items():
        table += [line(name, row) for row in kept["rows"]]
    missing = [name for name in BENCHMARKS if name not in found]
    parts = [
        "# Speed beside peers, measured",
        "Medians over turns in which ours and the peer take their places in alternation. A ratio is the median of ours "
        "to the peer's within one turn: of images a second more is better, of seconds less; in brackets that of images "
        "a processor second, which the threads' waiting for one another does not count in. A goal with a unit is of "
        "our own figure, one without of the ratio.",
        "\n".join(table),
        *([f"Not measured: {listed(missing)}."] if missing else []),
        "\n".join(made_with(name, kept) for name, kept in found.items()),
        "Made by `python -m benchmarks.report`.\n",
    ]
    return "\n\n".join(parts)


def line(name: str, row: Mapping[str, Any]) -> str:
    """Returns a row of the table; what a benchmark found nothing of is empty."""
    word = {True: "reached", False: "MISSED", None: ""}[row.get("reached")]
    ratio = f"{row['ratio']:.2f}" if row.get("ratio") is not None else ""
    ratio += f" ({row['of_processor']:.2f})" if row.get("of_processor") is not None else ""
    figures = [f"{shown(row[key])} {row['unit']}" if row.get(key) is not None else "" for key in ("ours", "theirs")]
    cells = [name, row["what"], figures[0], row.get("peer", ""), figures[1], ratio, row.get("goal", ""), word]
    return "| " + " | ".join(cells) + " |"


def shown(value: float) -> str:
    """Returns three digits or more: 2,310, 12.3, 1.23, 0.123."""
    digits = next((digits for low, digits in ((100, 0), (10, 1), (1, 2)) if value >= low), 3)
    return f"{value:,.{digits}f}"


def made_with(name: str, kept: Mapping[str, Any]) -> str:
    """Returns what a benchmark is of, and what it was measured with."""
    packages = ", ".join(f"{package} {version}" for package, version in kept["versions"].items())
    peers = ", ".join(f"{package} {version}" for package, version in kept["peers"].items())
    old = "" if kept["code"] == code_of(name) else " It was measured before the code last changed."
    return (
        f"- `{name}`: {BENCHMARKS[name].about}. {kept['cores']} cores ({kept['processor']}), load before it "
        f"{kept['load']:.2f}; {packages}{f'; of the peers: {peers}' if peers else ''}.{old}"
    )


if __name__ == "__main__":
    main()
