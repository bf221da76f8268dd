"""Whatever the bytes of a checkpoint's list of files: it is whole by what is on the disk, or it is said why not."""

import json
import pathlib

import pytest
from etils import epath
from hypothesis import strategies as st

from mmjax.training import integrity
from tests.fuzzing import amounts, fuzz, json_values, mutated, odd_text, spliced

FILES = {"state/manifest": b"a list", "state/d/0001": bytes(range(256)), "meta/metadata": b"{}"}


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """The folder of a step, whole."""
    step = tmp_path / "7"
    for name, data in FILES.items():
        (step / name).parent.mkdir(parents=True, exist_ok=True)
        (step / name).write_bytes(data)
    integrity.write_manifest(step)
    return step


def lists(whole: str) -> st.SearchStrategy[bytes]:
    """Returns lists of any kind: bytes, JSON, the right one damaged, and right in form with odd names and numbers."""
    numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([True, "6", "9" * 5000, None, float("inf")]))
    names = st.one_of(odd_text, st.sampled_from([*FILES, "", "state", "state/../meta/metadata", "x" * 5000]))
    entries = st.dictionaries(names, st.one_of(st.tuples(numbers, numbers), json_values), max_size=3)
    texts = st.one_of(
        mutated(whole), json_values.map(json.dumps), entries.map(lambda each: json.dumps({"files": each}))
    )
    return st.one_of(st.binary(max_size=100), spliced(whole.encode()), texts.map(str.encode))


@amounts
def test_any_bytes_as_the_list_of_files(amount, folder):
    path = folder / integrity.MANIFEST
    whole = path.read_text()
    right = json.loads(whole)["files"]

    def check(data: bytes) -> None:
        path.write_bytes(data)
        for share in ((0, 1), (1, 2)):
            found = integrity.damage(epath.Path(folder), share=share)
            found.encode()  # it is printed, and told to other processes
        if not integrity.damage(epath.Path(folder)):
            files = json.loads(data)["files"]
            assert files and all(list(map(int, files[name])) == right[name] for name in files)

    deep = b'{"files": ' + b"[" * 100_000
    fuzz(amount, check, lists(whole), examples=[(deep,), (b'{"files": {}}',), (b'{"files": {"a\\u0000": [1, 2]}}',)])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"files": {}}', "names none"),
        ('{"files": {"state/manifest": [1e999, 1]}}', "OverflowError"),
        ('{"files": ' + "[" * 100_000, "RecursionError"),
        ('{"files": {"a\\u0000b": [1, 2]}}', r"names 'a\x00b', which is not in its folder"),
        ('{"files": {"state//d/0001": [256, 1]}}', "names 'state//d/0001', which is not in its folder"),
        ('{"files": {"\\ud800": [1, 2]}}', r"names '\ud800', which is not in its folder"),
    ],
)
def test_a_list_that_cannot_be_is_damage(folder, text, told):
    (folder / integrity.MANIFEST).write_text(text)
    assert told in integrity.damage(epath.Path(folder))
