"""Tests by their node ids: which there are, and what reports in the JUnit format say of them."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence

from mmjax.core.errors import UserError, nearest

PYTEST = [sys.executable, "-m", "pytest", "-n", "0", "-m", ""]  # one process, the slow ones too
WORST = ("failed", "skipped", "passed")
"""What a test ends in, the worst first; an error before or after it has failed it."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One test as a report has it.

    Attributes:
      ended: one of WORST.
      seconds: with its fixtures.
      words: why it failed or was skipped, or what it found; one line.
    """

    ended: str
    seconds: float
    words: str = ""


def collected(tests: Sequence[str], root: pathlib.Path) -> dict[str, list[str]]:
    """Returns each of the tests (a file, a function, one case of it) -> the node ids of its cases, by pytest itself.

    Raises:
      UserError: a test that is not there, or files that pytest cannot collect.
    """
    files = sorted({test.partition("::")[0] for test in tests})
    for file in files:
        if not (root / file).is_file():
            there = [str(path.relative_to(root)) for path in root.rglob("test_*.py")]
            raise UserError(f"the test file {file!r} does not exist.{nearest(file, there)}")
    command = [*PYTEST, "--collect-only", "--verbosity=-1", "--no-header", *files]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"pytest cannot collect the tests of {', '.join(files)}:\n{done.stdout[-3000:]}{done.stderr}")
    cases = [line for line in done.stdout.splitlines() if "::" in line]
    found = {
        test: [case for case in cases if case == test or case.startswith((f"{test}::", f"{test}["))] for test in tests
    }
    for test, own in found.items():
        if not own:
            there = list(dict.fromkeys(case.partition("[")[0] for case in cases))
            raise UserError(f"the test {test!r} does not exist.{nearest(test, there)} Its file was collected.")
    return found


def read(reports: Iterable[pathlib.Path]) -> tuple[dict[tuple[str, str], Case], list[str]]:
    """Returns (class, name) of each test -> its case, by the last report that has it, and the names of the suites.

    Raises:
      UserError: a report that cannot be read.
    """
    cases: dict[tuple[str, str], Case] = {}
    suites: dict[str, None] = {}
    for path in reports:
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise UserError(f"{path} is no JUnit report that can be read: {error}.") from error
        suites |= dict.fromkeys(suite.get("name", "") for suite in root.iter("testsuite"))
        own: dict[tuple[str, str], Case] = {}
        for element in root.iter("testcase"):
            key = element.get("classname", ""), element.get("name", "")
            own[key] = _worse(own[key], _case(element)) if key in own else _case(element)
        cases |= own
    return cases, list(suites)


def _case(element: ElementTree.Element) -> Case:
    seconds = float(element.get("time", 0))
    for ended, names in (("failed", ("failure", "error")), ("skipped", ("skipped",))):
        for child in element:
            if child.tag in names:
                return Case(ended, seconds, " ".join((child.get("message") or "").split())[:300])
    found = [each.get("value", "") for each in element.iter("property") if each.get("name") == "found"]
    return Case("passed", seconds, "; ".join(found))


def _worse(one: Case, other: Case) -> Case:
    """Returns the worse of two entries of one test, such as its call and its teardown, with the seconds of both."""
    return dataclasses.replace(
        min(one, other, key=lambda case: WORST.index(case.ended)), seconds=one.seconds + other.seconds
    )


def key(case: str) -> tuple[str, str]:
    """Returns (class, name) by which a report names a node id."""
    path, bracket, parameters = case.partition("[")
    file, *names = path.split("::")
    module = file.removesuffix(".py").replace("/", ".")
    return ".".join([module, *names[:-1]]), names[-1] + bracket + parameters


def looked_up(tests: Mapping[str, Sequence[str]], cases: Mapping[tuple[str, str], Case]) -> dict[str, Case | None]:
    """Returns node id -> its case, None where no report has it, of all cases of some tests."""
    return {case: cases.get(key(case)) for own in tests.values() for case in own}
