"""pyproject.toml against the source: what is imported is declared; what is optional is imported where it is used."""

import importlib.metadata
import pathlib
import re
import sys
import tomllib

from tests.import_graph import Import, imports

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Files that import an optional package at their top, and are themselves imported inside functions only.
OPTIONAL_FILES = ("mmjax.notebook.figure",)

# Packages whose import name no installed metadata tells.
IMPORT_NAMES = {"google": "protobuf", "orbax": "orbax-checkpoint", "tensorflow": "tensorflow"}


def normal(name: str) -> str:
    """'resvg_py>=0.2' -> 'resvg-py', as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def declared(*extras: str) -> set[str]:
    """Returns the distributions that the core and the extras declare, extras of extras included."""
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in extras)]
    found = set()
    for requirement in (requirement for requirements in lists for requirement in requirements):
        if inner := re.match(r"mmjax\[(.+)\]", requirement):
            found |= declared(*inner[1].split(","))
        else:
            found.add(normal(requirement))
    return found


def distributions(item: Import, installed: dict[str, list[str]]) -> set[str]:
    """Returns the distributions that may provide what is imported."""
    name = item.target.split(".")[0]
    given = {IMPORT_NAMES[name]} if name in IMPORT_NAMES else installed.get(name, [name])
    return {normal(each) for each in given}


def third_party(*packages: str) -> list[Import]:
    """Returns the imports of what is neither Python's nor ours: a top-level package of the repository."""
    ours = {*sys.stdlib_module_names, *(path.parent.name for path in ROOT.glob("*/__init__.py"))}
    return [i for package in packages for i in imports(ROOT, package) if i.target.split(".")[0] not in ours]


def undeclared(items: list[Import], known: set[str]) -> list[str]:
    """Returns a sentence for each import that no distribution in known provides."""
    installed = dict(importlib.metadata.packages_distributions())
    return [f"{i.module}:{i.line} imports {i.target}" for i in items if not distributions(i, installed) & known]


def test_imports_at_the_top_are_core_dependencies():
    items = [i for i in third_party("mmjax") if i.top_level and i.module not in OPTIONAL_FILES]
    assert len(items) > 50
    assert not undeclared(items, declared()), "\n".join(undeclared(items, declared()))


def test_imports_inside_functions_are_declared_in_core_or_an_extra():
    known = declared(*PROJECT["optional-dependencies"])
    assert not undeclared(third_party("mmjax"), known), "\n".join(undeclared(third_party("mmjax"), known))


def test_files_of_optional_packages_are_imported_inside_functions():
    wrong = [i.module for i in imports(ROOT, "mmjax") if i.target in OPTIONAL_FILES and i.top_level]
    assert not wrong


def test_imports_of_tests_and_benchmarks_are_declared_in_demo_and_test():
    items = [i for i in third_party("tests", "benchmarks") if i.top_level]
    known = declared("demo", "test")
    assert not undeclared(items, known), "\n".join(undeclared(items, known))


def test_core_dependencies_are_all_imported():
    installed = dict(importlib.metadata.packages_distributions())
    used = {name for item in third_party("mmjax") for name in distributions(item, installed)}
    # tensorflow-cpu gives the import `tensorflow`; array-record is what TFDS reads the data set's files with.
    used |= {"tensorflow-cpu", "array-record"}
    assert declared() - used == set()


def test_extras_are_those_of_the_readme():
    names = {"demo", "audio", "video", "data", "test", "gpu", "tpu", "notebook", "parity", "plan", "beam", "weights"}
    assert names == set(PROJECT["optional-dependencies"])


def test_every_folder_of_the_package_is_in_a_wheel():
    folders = {path.parent for path in (ROOT / "mmjax").rglob("*.py")}
    assert len(folders) > 10
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]  # setuptools finds no others
