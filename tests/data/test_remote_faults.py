"""A store that fails: reads are tried again after growing pauses, then a sentence names the address and the reason."""

import threading

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmjax.core.errors import TemporaryError, UserError
from mmjax.data.sources import FolderSource, ManifestSource, WebDatasetSource, remote
from mmjax.data.sources.files import opened
from tests.data.test_sources import outcomes, tar


class Flaky(MemoryFileSystem):
    """Memory whose every kind of read fails the first `failures` times."""

    protocol = "flaky"
    cachable = False
    store, pseudo_dirs = {}, [""]
    failures, calls = 0, {}
    never = threading.Event()  # set at a test's end
    hangs = False  # instead of failing

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    def _fail(self, kind):
        Flaky.calls[kind] = Flaky.calls.get(kind, 0) + 1
        if Flaky.calls[kind] <= Flaky.failures and Flaky.hangs:
            Flaky.never.wait()
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
    with pytest.raises(
        TemporaryError, match=r"^flaky://d/\S+ cannot be read: 10 attempts .*ConnectionResetError: reset"
    ):
        source.read(0)
    assert len(pauses) == 9 and max(pauses) <= 30


def test_time_is_bounded_too(pauses):
    def slow():
        pauses.append(200.0)
        raise TimeoutError("no answer")

    with pytest.raises(UserError, match=r"^s3://x/y cannot be read: 2 attempts in 40\d seconds .*no answer"):
        remote.retried(slow, "s3://x/y")


@pytest.fixture
def hanging(store, monkeypatch):
    """Reads that would fail never return instead; an attempt is given up after a twentieth of a second."""
    monkeypatch.setattr(Flaky, "hangs", True)
    monkeypatch.setattr(Flaky, "never", threading.Event())
    monkeypatch.setitem(remote.retried.__kwdefaults__, "attempt_seconds", 0.05)
    yield
    Flaky.never.set()


@pytest.mark.parametrize("kind", OPEN)
def test_reads_that_never_return_are_given_up_and_tried_again(kind, hanging, pauses, tmp_path):
    Flaky.failures = 2
    assert outcomes(OPEN[kind](tmp_path)) == [(b"x", ["t"])]
    assert len(pauses) >= 2


@pytest.mark.parametrize("kind", OPEN)
def test_a_store_that_never_answers_is_a_sentence(kind, hanging, pauses, tmp_path):
    source = OPEN[kind](tmp_path)
    pauses.clear()
    Flaky.failures = 10**9
    with pytest.raises(
        TemporaryError, match=r"^flaky://d/\S+ cannot be read: 10 attempts .*no answer within 0.05 seconds"
    ):
        source.read(0)
    assert len(pauses) == 9 and max(pauses) <= 30


def test_an_attempt_that_was_given_up_moves_nothing_for_the_next(hanging):
    """The late read of the first attempt would leave the file at another place under the second's hands."""
    files = fsspec.filesystem("flaky")
    files.pipe_file("/d/long", bytes(range(256)) * 1000)
    used, late = [], threading.Event()

    class Late:
        def __init__(self, file):
            self._file = file
            used.append(self)

        def seek(self, *args):
            return self._file.seek(*args)

        def read(self, size):
            if len(used) == 1:
                late.wait()
            return self._file.read(size)

        def close(self):
            self._file.close()

    file = opened("flaky://d/long")
    used.clear()
    file.raw._file, reopen = Late(file.raw._file), file.raw._reopen
    file.raw._reopen = lambda: Late(reopen())
    assert file.read() == bytes(range(256)) * 1000
    late.set()
    assert len(used) == 2


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, ValueError])
def test_what_time_does_not_mend_is_not_tried_again(error, pauses):
    with pytest.raises(error):
        remote.retried(lambda: (_ for _ in ()).throw(error("no")), "s3://x/y")
    assert pauses == []
