"""Runs a config in many variants and seeds, and writes what it measured as a Markdown table.

    python -m benchmarks.study har --out docs/results
    python -m benchmarks.study --list                          # sentiment, action, ecg, bind, semi_paired, ...

A run that was measured before (same config and versions) is taken from WORKDIR/measured.json, and one that was broken
off goes on where it was (its minutes are then those of the last part); `--fresh` measures anew.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import fiddle as fdl
import jax
from rich.console import Console

from benchmarks.studies import STUDIES
from benchmarks.studies.rows import Rows, Run
from benchmarks.studies.table import ROOT, Study
from mmjax.cli import quiet_and_cached
from mmjax.core.config import load_config, to_json
from mmjax.core.errors import UserError, at_least, one_of
from mmjax.core.override import override
from mmjax.training.checkpoint import InitFrom
from mmjax.training.loop import fit
from mmjax.training.stop import EXIT_CODE, Interrupted

SHARES = ("accuracy", "weighted_f1", "macro_f1", "top_1", "pairs", "mismatches", "hard_mismatches")
PACKAGES = ("jax", "flax", "optax", "tensorflow-datasets")


def main() -> None:
    """Parses the command line, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", help="which; see --list")
    parser.add_argument("--list", action="store_true", help="show the studies")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results", help="folder of the tables")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/studies"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, in processes with a core each")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--smoke", action="store_true", help="the smoke size of the config and one seed, to try it")
    options = parser.parse_args()
    if options.list or not options.study:
        print("\n".join(f"{name:14} {study.title}" for name, study in STUDIES.items()))
        return
    quiet_and_cached()
    try:
        one_of(options.study, STUDIES, "the study")
        at_least(1, "benchmarks.study", jobs=options.jobs)
        run(options)
    except UserError as error:
        parser.exit(2, f"benchmarks.study: {error}\n")
    except Interrupted as stopped:
        parser.exit(EXIT_CODE, f"benchmarks.study: {stopped}\n")


def run(options: argparse.Namespace) -> None:
    """Measures one study and writes its page; with --smoke in the workdir, as it says nothing of the full size."""
    study = STUDIES[options.study]
    rows = measure(study, options)
    out = options.workdir / "smoke" if options.smoke else options.out
    out.mkdir(parents=True, exist_ok=True)
    text = document(options.study, study, rows)
    (out / f"{options.study}.md").write_text(text)
    if study.curve:
        study.curve.draw(rows, out / f"{options.study}.png")
    print(text)


def measure(study: Study, options: argparse.Namespace) -> Rows:
    """Returns each run with its metrics, one dict a seed; what is new goes to the store as soon as it is there."""
    folder = options.workdir / options.study
    folder.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        shutil.rmtree(folder)
        folder.mkdir()
    store = folder / "measured.json"
    known = json.loads(store.read_text()) if store.exists() and not options.fresh else {}
    keys: dict[tuple[int, int], str] = {}
    seeds = range(1 if options.smoke else study.seeds)
    for number, run in enumerate(study.runs):
        for seed in seeds:
            keys[number, seed] = key_of(
                configured(study, run, seed, options.smoke), teacher_of(study, run, seed, options.smoke)
            )
    todo = [(options.study, *one, options.smoke, str(folder / keys[one][:8])) for one in keys if keys[one] not in known]
    with processes(options.jobs) as each:
        for task, found in zip(todo, each(trained, todo), strict=True):
            _, number, seed, *_ = task
            known[keys[number, seed]] = found
            store.write_text(json.dumps(known, indent=1))
            values = {column: found.get(metric) for column, metric in study.columns.items()}
            print(study.runs[number].name, "seed", seed, values, f"{found['seconds']:.0f} s", flush=True)
    return [(run, [known[keys[number, seed]] for seed in seeds]) for number, run in enumerate(study.runs)]


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """Yields a `map`: this process's own, or over `jobs` processes that have a core each."""
    if jobs == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for core, _ in zip(itertools.cycle(own_cores()), range(jobs), strict=False):
        cores.put(core)
    with concurrent.futures.ProcessPoolExecutor(jobs, context, _on_a_core, (cores,)) as pool:
        yield pool.map


def own_cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    found = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return sorted(found)


def _on_a_core(cores: Any) -> None:
    if hasattr(os, "sched_setaffinity"):  # macOS has none
        os.sched_setaffinity(0, {cores.get()})
    quiet_and_cached()


def trained(task: tuple[str, int, int, bool, str]) -> dict[str, float]:
    """Trains (study, number of the run, seed, smoke, workdir) in workdir, which is deleted when the run has ended.

    Returns:
      The last metrics of the evaluations and ('train/...') of a step, the `seconds` they took and the `cores`.
    """
    name, number, seed, smoke, workdir = task
    study, run = STUDIES[name], STUDIES[name].runs[number]
    config = configured(study, run, seed, smoke)
    begin = time.monotonic()
    folder = pathlib.Path(workdir)
    if teacher := teacher_of(study, run, seed, smoke):
        teachers = fdl.ordered_arguments(config.model).get("teachers", {})  # a model without has none to be given
        config.teachers = {each: fdl.Config(InitFrom, str(taught(teacher, folder))) for each in teachers}
    found = fit(config, folder / "run", Console(file=io.StringIO()))
    last = last_logged(folder / "run" / "metrics.jsonl")
    shutil.rmtree(workdir, ignore_errors=True)
    return last | found | {"seconds": time.monotonic() - begin, "cores": len(own_cores())}


def last_logged(path: pathlib.Path) -> dict[str, float]:
    """Returns 'train/<metric>' -> value of the last step of training that was logged."""
    steps = [line for line in map(json.loads, path.read_text().splitlines()) if "loss" in line]
    return {f"train/{name}": value for name, value in steps[-1].items()}


def taught(config: Any, workdir: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a teacher's run beside workdir: trained there first, and once for all rows that have it."""
    path = workdir.parent / f"teacher-{key_of(config)[:8]}"
    if not path.exists():
        fit(config, workdir / "teacher", Console(file=io.StringIO()))
        with contextlib.suppress(OSError):  # another process made the same one first
            (workdir / "teacher").rename(path)
    return path


def key_of(config: Any, teacher: Any = None) -> str:
    """Returns what tells the measurement of a config, these versions and its teacher, from every other."""
    text = to_json(config) + repr(versions()) + (to_json(teacher) if teacher else "")
    return hashlib.sha256(text.encode()).hexdigest()


def configured(study: Study, run: Run, seed: int, smoke: bool) -> Any:
    """Returns the config of one run."""
    size = "smoke" if smoke else run.config
    return seeded(f"{run.file or study.config}:{size}".rstrip(":"), seed, run.sets)


def teacher_of(study: Study, run: Run, seed: int, smoke: bool) -> Any:
    """Returns the config of the run's teacher, or None."""
    return seeded(study.smoke_teacher if smoke else run.teacher, seed) if run.teacher else None


def seeded(spec: str, seed: int, sets: Sequence[str] = ()) -> Any:
    """Returns the config of FILE:SIZE with a seed and what else is set."""
    config = load_config(str(ROOT / spec))
    for assignment in (*sets, f"seed={seed}", f"data.seed={seed}"):
        override(config, assignment)
    return config


def versions() -> dict[str, str]:
    """Returns package -> version of what the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def document(name: str, study: Study, rows: Rows) -> str:
    """Returns the Markdown page: what was run, with what, and the table."""
    seconds = sum(each["seconds"] for _, found in rows for each in found)
    count = max(each["cores"] for _, found in rows for each in found)
    cores = "one core" if count == 1 else f"{count} cores"
    heads = [*study.runs[0].cells, *study.columns]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for run, found in rows:
        cells = [shown(metric, [each.get(metric) for each in found]) for metric in study.columns.values()]
        lines.append("| " + " | ".join([*run.cells.values(), *cells]) + " |")
    made = ", ".join(f"{package} {version}" for package, version in versions().items())
    seeds = len(rows[0][1])
    spread = f"Mean over {seeds} seeds, ± the standard deviation between them. " if seeds > 1 else "One seed. "
    machine = f"{platform.machine()}, {jax.device_count()} {jax.default_backend()} device"
    return "\n\n".join(
        [
            f"# {study.title}",
            " ".join(study.about.split()),
            *[extra(rows) for extra in study.extras],
            "\n".join(lines),
            *([f"![{study.title}]({name}.png)"] if study.curve else []),
            f"{spread}Made by `python -m benchmarks.study {name}` in {seconds / 60:.0f} minutes of training and "
            f"evaluation, each run on {cores} ({machine}; Python {platform.python_version()}, {made}).\n",
        ]
    )


def shown(metric: str, values: Sequence[float | None]) -> str:
    """Returns '93.1 ± 0.4 %' of shares, '0.412 ± 0.010' of other numbers, '' where there are none."""
    if any(value is None for value in values):
        return ""
    last = metric.rsplit("/", 1)[-1]
    share = last in SHARES or "recall_at_" in last
    scaled = [100 * value if share else value for value in values]
    digits = 1 if share else 3
    spread = f" ± {statistics.stdev(scaled):.{digits}f}" if len(scaled) > 1 else ""
    return f"{statistics.fmean(scaled):.{digits}f}{spread}{' %' if share else ''}"


if __name__ == "__main__":
    main()
