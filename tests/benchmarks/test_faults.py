"""The page of faults names tests that are there, and a test that fails is shown as failed."""

import pathlib

import pytest

from benchmarks import faults, junit
from benchmarks.fault_list import FAULTS, Fault
from mmjax.core.errors import UserError

TESTS = """
import pytest

def test_good(record_property):
    record_property("found", "nothing lost")

@pytest.mark.parametrize("name", ["a/b::c", "d[e]"])
def test_bad(name):
    assert name == "a/b::c", "it broke"

@pytest.mark.slow
def test_left_out():
    pytest.skip("not here")

@pytest.fixture
def late():
    yield
    raise OSError("after the end")

def test_late(late):
    pass
"""
NAMES = ("test_some.py::test_good", "test_some.py::test_bad", "test_some.py::test_left_out", "test_some.py::test_late")


@pytest.mark.slow
def test_every_named_test_is_collected():
    names = list(dict.fromkeys(name for fault in FAULTS.values() for name in fault.tests))
    found = junit.collected(names, faults.ROOT)
    assert list(found) == names and all(found.values())
    longs = [case for name in FAULTS["fuzz"].tests for case in found[name] if "long" in case]
    assert {case.partition("::")[0] for case in longs} == {name.partition("::")[0] for name in FAULTS["fuzz"].tests}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A folder with TESTS."""
    root = tmp_path_factory.mktemp("tests")
    (root / "pytest.ini").write_text("[pytest]\nmarkers = slow\naddopts = -q -m 'not slow' -n 2 --dist loadfile\n")
    (root / "test_some.py").write_text(TESTS)
    return root


@pytest.fixture(scope="module")
def report(folder) -> pathlib.Path:
    return faults.run(NAMES, folder / "report.xml", folder)


@pytest.fixture(scope="module")
def tests(folder) -> dict[str, list[str]]:
    return junit.collected(NAMES, folder)


def test_what_failed_is_shown_as_failed(tests, report):
    text = faults.document({"some": Fault("a fault", "an end", NAMES)}, tests, *junit.read([report]))
    assert "| a fault (`some`) | an end | 2 | 2 | 1 | 0 |" in text and "| all |  | 2 | 2 | 1 | 0 |" in text
    assert "- `test_some.py::test_bad[d[e]]` failed: AssertionError: it broke" in text
    assert "test_late` failed: " in text and "after the end" in text
    assert "test_left_out` skipped: not here" in text and "test_good` passed: nothing lost" in text
    assert "  - `test_some.py::test_bad` (2)" in text and f"ran with: {faults.versions()}." in text


def test_what_is_in_no_report_is_not_run(tests, report):
    cases, suites = junit.read([report])
    del cases[junit.key("test_some.py::test_bad[a/b::c]")]
    text = faults.document({"some": Fault("a fault", "an end", NAMES)}, tests, cases, suites)
    assert "| an end | 1 | 2 | 1 | 1 |" in text


def test_the_last_report_counts_and_all_versions_are_named(folder, report, tmp_path):
    later = tmp_path / "later.xml"
    later.write_text(
        '<testsuites><testsuite name="later"><testcase classname="test_some" name="test_late" time="2"/>'
        "</testsuite></testsuites>"
    )
    late = junit.key(NAMES[3])
    assert junit.read([report, later])[0][late] == junit.Case("passed", 2.0)
    cases, suites = junit.read([later, report])
    assert cases[late].ended == "failed" and suites == ["later", faults.versions()]


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("test_some.py::test_god", "'test_some.py::test_god' does not exist. Did you mean 'test_some.py::test_good'"),
        ("test_som.py::test_good", "file 'test_som.py' does not exist. Did you mean 'test_some.py'"),
        ("test_some.py::test_bad[x]", r"'test_some.py::test_bad\[x\]' does not exist"),
    ],
)
def test_a_test_that_is_gone_is_a_sentence(folder, test, told):
    with pytest.raises(UserError, match=told):
        junit.collected([test], folder)


def test_a_report_that_is_none_is_a_sentence(tmp_path):
    (tmp_path / "cut.xml").write_text("<testsuites><testsuite")
    for name in ("cut.xml", "gone.xml"):
        with pytest.raises(UserError, match=f"{name} is no JUnit report that can be read"):
            junit.read([tmp_path / name])


def test_pytest_that_cannot_run_is_a_sentence(folder):
    with pytest.raises(UserError, match="pytest ended with 4"):
        faults.run(["test_gone.py"], folder / "none.xml", folder)


def test_a_command_ends_with_one_where_a_test_failed(folder, report, monkeypatch, tmp_path):
    monkeypatch.setattr(faults, "ROOT", folder)
    monkeypatch.setattr(faults, "FAULTS", {"some": Fault("a fault", "an end", NAMES), "good": Fault("", "", NAMES[:1])})
    for names, code in ((["good"], 0), (["some"], 1)):
        command = ["faults", "--only", *names, "--junit", str(report), "--workdir", str(tmp_path)]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as ended:
            faults.main()
        assert ended.value.code == code and (tmp_path / f"{names[0]}.md").exists()
    monkeypatch.setattr("sys.argv", ["faults", "--only", "goood"])
    with pytest.raises(SystemExit) as ended:
        faults.main()
    assert ended.value.code == 2
