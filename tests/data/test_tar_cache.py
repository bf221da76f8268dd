"""The cache of tar indexes: whatever its bytes, the index is right; the processes of a job fill it together."""

import json
import os
import stat

import numpy as np
import pytest
from hypothesis import strategies as st

from mmjax.data.sources import tar_cache, tar_index
from tests.data.test_sources import tar
from tests.devices import run_on_hosts
from tests.fuzzing import amounts, fuzz, spliced


def shards(folder, count: int) -> list[str]:
    """Writes shards of two samples."""
    members = [(f"{key}.{end}", end.encode() * 3) for key in "ab" for end in ("jpg", "txt")]
    return [tar(folder / f"{number}.tar", members) for number in range(count)]


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """The shards whose headers were read, in no certain order."""
    found, build = [], tar_index.build_index
    monkeypatch.setattr(tar_index, "build_index", lambda *args: found.append(args[2]) or build(*args))
    return found


def check_equal(found, expected) -> None:
    assert found.extensions == expected.extensions and found.cut == expected.cut
    for name in ("keys", "offsets", "sizes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@st.composite
def flipped(draw: st.DrawFn, data: bytes) -> bytes:
    """Returns data with a few bits turned."""
    found = bytearray(data)
    for at in draw(st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=4)):
        found[at // 8] ^= 1 << at % 8
    return bytes(found)


@amounts
def test_any_bytes_in_the_cache(amount, tmp_path):
    """Among a zip's bits are the kind of compression and of encryption, which zipfile refuses in its own ways."""
    (path,), cache = shards(tmp_path, 1), tmp_path / "cache"
    (expected,) = tar_cache.load_indexes([path], str(cache))
    (file,) = cache.iterdir()
    whole = file.read_bytes()

    def check(data: bytes) -> None:
        file.write_bytes(data)
        check_equal(*tar_cache.load_indexes([path], str(cache)), expected)

    inputs = st.one_of(st.binary(max_size=200), flipped(whole), spliced(whole))
    fuzz(amount, check, inputs)


@pytest.mark.parametrize(
    "change",
    [
        {"keys": np.zeros((2, 2), "S1")},
        {"keys": np.zeros(3, "S1")},
        {"keys": np.arange(2)},
        {"offsets": np.zeros((2, 1), np.int64)},
        {"sizes": np.zeros((2, 2), np.int32)},
        {"sizes": np.full((2, 2), -2)},
        {"offsets": np.full((2, 2), 20_000)},
        {"sizes": np.full((2, 2), 2**62)},
        {"cut": 10**6},
    ],
)
def test_arrays_that_do_not_fit_are_built_again(change, tmp_path, built):
    """Whole files with wrong arrays, as of another version of the library."""
    (path,), cache = shards(tmp_path, 1), tmp_path / "cache"
    (expected,) = tar_cache.load_indexes([path], str(cache))
    (file,) = cache.iterdir()
    with np.load(file) as data:
        np.savez(file, **(dict(data) | change))
    check_equal(*tar_cache.load_indexes([path], str(cache)), expected)
    assert len(built) == 2


def test_only_the_owner_may_change_the_cache(tmp_path):
    given = os.umask(0)
    try:
        tar_cache.load_indexes(shards(tmp_path, 2), str(tmp_path / "cache"))
    finally:
        os.umask(given)
    for path in (tmp_path / "cache", *(tmp_path / "cache").iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o022


def test_without_the_others_everything_is_built(tmp_path, built, monkeypatch):
    paths = shards(tmp_path, 5)
    monkeypatch.setattr(tar_cache.distributed, "place", lambda: (1, 2))
    monkeypatch.setattr(tar_cache, "PATIENCE", 0.0)
    assert [len(index) for index in tar_cache.load_indexes(paths, str(tmp_path / "cache"))] == [2] * 5
    assert sorted(built) == paths and set(built[:2]) == {paths[1], paths[3]}  # its own first
    tar_cache.load_indexes(paths, str(tmp_path / "cache"))
    assert len(built) == 5


TOGETHER = """
import json
from mmjax.data.sources import tar_cache, tar_index
built, build = [], tar_index.build_index
tar_index.build_index = lambda *args: built.append(args[2]) or build(*args)
found = tar_cache.load_indexes(PATHS, CACHE)
print("found", json.dumps([sorted(built), [len(index) for index in found]]), flush=True)
"""


def test_two_processes_build_each_its_part(tmp_path):
    paths = shards(tmp_path, 7)
    source = TOGETHER.replace("PATHS", repr(paths)).replace("CACHE", repr(str(tmp_path / "cache")))
    outputs = [json.loads(out.rpartition("found ")[2].splitlines()[0]) for out in run_on_hosts(source, num_devices=1)]
    assert [built for built, _ in outputs] == [paths[0::2], paths[1::2]]
    assert [sizes for _, sizes in outputs] == [[2] * 7] * 2
