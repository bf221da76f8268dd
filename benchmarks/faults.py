"""Every fault that a run has to survive, injected by its tests: what passed, in one table.

    python -m benchmarks.faults                                  # all of them, the long ones too: hours
    python -m benchmarks.faults --only soak kill                 # some of them; their page stays in WORKDIR
    python -m benchmarks.faults --junit runs/faults/*.xml        # the page of reports that are there; nothing runs
    python -m benchmarks.faults --list

pytest runs once, in one process, and leaves its report under WORKDIR, so that the long faults can be run apart and
the page be made of all reports; of a test that is in several, the last one given counts. Reports of `pytest
--junitxml` will do as well. Writes docs/results/faults.md, and ends with 1 where a test failed or is in no report.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from benchmarks import junit
from benchmarks.fault_list import FAULTS, Fault
from benchmarks.junit import Case
from mmjax.core.errors import UserError, one_of

ROOT = pathlib.Path(__file__).parent.parent
PACKAGES = ("jax", "flax", "orbax-checkpoint", "tensorflow-datasets", "hypothesis", "pytest")
ENDS = ("passed", "failed", "skipped", "not run")


def main() -> None:
    """Parses the command line, runs or reads, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="FAULT", help="some of them; see --list")
    parser.add_argument("--junit", type=pathlib.Path, nargs="+", metavar="FILE", help="reports to read; nothing runs")
    parser.add_argument("--list", action="store_true", help="show the faults")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs" / "results", help="folder of the page")
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/faults"))
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:12} {fault.done}" for name, fault in FAULTS.items()))
        return
    try:
        whole = made(options)
    except UserError as error:
        parser.exit(2, f"benchmarks.faults: {error}\n")
    raise SystemExit(0 if whole else 1)


def made(options: argparse.Namespace) -> bool:
    """Writes the page and returns whether every test passed or was skipped."""
    for name in options.only or ():
        one_of(name, FAULTS, "--only")
    faults = {name: FAULTS[name] for name in options.only or FAULTS}
    names = list(dict.fromkeys(test for fault in faults.values() for test in fault.tests))
    tests = junit.collected(names, ROOT)
    name = "-".join(options.only or ["all"])
    reports = options.junit or [run(names, options.workdir / f"{name}.xml", ROOT)]
    cases, suites = junit.read(reports)
    text = document(faults, tests, cases, suites)
    page = options.workdir / f"{name}.md" if options.only else options.out / "faults.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    print(text)
    counts = counted(junit.looked_up(tests, cases).values())
    return counts["failed"] == counts["not run"] == 0


def run(tests: Sequence[str], report: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """Runs the tests in one process of pytest and returns the file of its report, whose suite is named by the versions.

    Raises:
      UserError: pytest itself failed.
    """
    report = report.absolute()
    report.unlink(missing_ok=True)
    settings = ["-o", "junit_family=xunit1", "-o", f"junit_suite_name={versions()}", f"--junitxml={report}"]
    done = subprocess.run([*junit.PYTEST, *settings, *tests], cwd=root)
    if done.returncode not in (0, 1) or not report.exists():  # 1: tests failed, which the report has
        raise UserError(f"pytest ended with {done.returncode}, see above; there is no report.")
    return report


def counted(cases: Iterable[Case | None]) -> dict[str, int]:
    """Returns how many of the cases ended in each of ENDS; None is one that was not run."""
    ended = [case.ended if case else "not run" for case in cases]
    return {end: ended.count(end) for end in ENDS}


def document(
    faults: Mapping[str, Fault],
    tests: Mapping[str, Sequence[str]],
    cases: Mapping[tuple[str, str], Case],
    suites: Sequence[str],
) -> str:
    """Returns the Markdown page: the table, what went wrong or was found, the tests of each fault, the versions."""
    rows, named = [], []
    for name, fault in faults.items():
        own = {test: tests[test] for test in fault.tests}
        rows.append(row([f"{fault.done} (`{name}`)", fault.seen], junit.looked_up(own, cases).values()))
        named += [f"- `{name}`:", *(f"  - `{test}` ({len(found)})" for test, found in own.items())]
    every = junit.looked_up(tests, cases)
    table = [
        "| fault | what has to come of it | " + " | ".join(ENDS) + " | seconds |",
        "|---|---|" + "---:|" * 5,
        *rows,
    ]
    said = [f"- `{case}` {found.ended}: {found.words}" for case, found in every.items() if found and found.words]
    parts = [
        "# Faults, each injected by tests",
        "Processes are real ones, on the loopback interface of one machine. A test of two faults is in the rows of "
        "both, and in the last row once.",
        "\n".join([*table, row(["all", ""], every.values())]),
        *(["## What tests say", "\n".join(said)] if said else []),
        "## The tests, and how many cases each has",
        "\n".join(named),
        f"Made by `python -m benchmarks.faults`; the tests ran with: {' and with: '.join(suites)}.\n",
    ]
    return "\n\n".join(parts)


def row(heads: Sequence[str], cases: Iterable[Case | None]) -> str:
    """Returns a line of the table."""
    cases = list(cases)
    seconds = sum(case.seconds for case in cases if case)
    cells = [*heads, *map(str, counted(cases).values()), f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"]
    return "| " + " | ".join(cells) + " |"


def versions() -> str:
    """Returns what the tests depend on, in a few words."""
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()}, {found} ({platform.machine()}, {os.cpu_count()} cores)"


if __name__ == "__main__":
    main()
