"""A store that fails: reads are tried again after growing pauses, then a sentence names the address and the reason."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmjax.core.errors import UserError
from mmjax.data.sources import FolderSource, ManifestSource, WebDatasetSource, remote
from tests.data.test_sources import outcomes, tar


class Flaky(MemoryFileSystem):
    """Memory whose every kind of read fails the first `failures` times."""

    protocol = "flaky"
    cachable = False
    store, pseudo_dirs = {}, [""]
    failures, calls = 0, {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def _fail(self, kind):
        Flaky.calls[kind] = Flaky.calls.get(kind, 0) + 1
        if Flaky.calls[kind] <= Flaky.failures:
            raise ConnectionResetError(f"reset while {kind}")

    def cat_file(self, *args, **kwargs):
        self._fail("cat")
        return super().cat_file(*args, **kwargs)

    def info(self, *args, **kwargs):
        self._fail("info")
        return super().info(*args, **kwargs)

    def _open(self, *args, **kwargs):
        self._fail("open")
        return super()._open(*args, **kwargs)


@pytest.fixture
def pauses(monkeypatch):
    """Returns the list of pauses made, none of which is waited for; time passes by them alone."""
    made = []
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(remote.time, "sleep", made.append)
    monkeypatch.setattr(remote.time, "monotonic", lambda: sum(made))
    monkeypatch.setattr(Flaky, "failures", 0)
    monkeypatch.setattr(Flaky, "calls", {})
    monkeypatch.setattr(Flaky, "store", {})
    return made


@pytest.fixture
def store(pauses, tmp_path):
    """Returns a store with a shard, a manifest and a folder of one record."""
    files = fsspec.filesystem("flaky")
    shard = tar(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.txt", b"t")])
    with open(shard, "rb") as file:
        files.pipe_file("/d/a.tar", file.read())
    files.pipe_file("/d/a.jsonl", b'{"image": "f/0.jpg", "caption": "t"}\n')
    files.pipe_file("/d/f/0.jpg", b"x")
    files.pipe_file("/d/f/0.txt", b"t")
    Flaky.calls.clear()


OPEN = {
    "tar": lambda tmp_path: WebDatasetSource("flaky://d/a.tar", cache_dir=str(tmp_path / "cache")),
    "manifest": lambda tmp_path: ManifestSource("flaky://d/a.jsonl"),
    "folder": lambda tmp_path: FolderSource("flaky://d/f"),
}


@pytest.mark.parametrize("kind", OPEN)
def test_passing_trouble_is_waited_out(kind, store, pauses, tmp_path):
    Flaky.failures = 3
    assert outcomes(OPEN[kind](tmp_path)) == [(b"x", ["t"])]
    for pause, full in zip(pauses, [1.0, 2.0, 4.0], strict=False):
        assert full / 2 <= pause <= full


@pytest.mark.parametrize("kind", OPEN)
def test_lasting_trouble_is_a_sentence(kind, store, pauses, tmp_path):
    source = OPEN[kind](tmp_path)
    pauses.clear()
    Flaky.failures = 10**9
    with pytest.raises(UserError, match=r"^flaky://d/\S+ cannot be read: 6 attempts .*ConnectionResetError: reset"):
        source.read(0)
    assert len(pauses) == 5


def test_time_is_bounded_too(pauses):
    def slow():
        pauses.append(200.0)
        raise TimeoutError("no answer")

    with pytest.raises(UserError, match=r"^s3://x/y cannot be read: 2 attempts in 40\d seconds .*no answer"):
        remote.retried(slow, "s3://x/y")


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, ValueError])
def test_what_time_does_not_mend_is_not_tried_again(error, pauses):
    with pytest.raises(error):
        remote.retried(lambda: (_ for _ in ()).throw(error("no")), "s3://x/y")
    assert pauses == []
