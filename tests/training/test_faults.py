"""Faults of the disk: damage is found and said, and the newest whole checkpoint is used; a full disk is a sentence."""

import errno
import json
import os
import pathlib
import random
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

from mmjax.core.errors import TemporaryError, UserError
from mmjax.data.sources import remote
from mmjax.training import integrity
from mmjax.training.checkpoint import Checkpoints, InitFrom, Keep
from tests.devices import device_env, run_on_hosts, start_on_hosts
from tests.training.test_checkpoint import save, state_at


def flip(path: pathlib.Path, at: int, bit: int = 0) -> None:
    """Turns one bit of a file."""
    found = bytearray(path.read_bytes())
    found[at] ^= 1 << bit
    path.write_bytes(found)


def files_of(workdir: pathlib.Path, step: int) -> list[pathlib.Path]:
    """Returns the files that a step's restoration reads: all but Orbax's own notes on when it was written."""
    folder = workdir / "checkpoints" / str(step)
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != folder)


def arrays(workdir: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the file that holds the values of the arrays."""
    folder = workdir / "checkpoints" / str(step) / "state" / "ocdbt.process_0" / "d"
    return max(folder.iterdir(), key=lambda path: path.stat().st_size)


def flip_value(workdir: pathlib.Path, step: int) -> None:
    """Turns a bit of the file that holds the values, somewhere in its middle."""
    path = arrays(workdir, step)
    flip(path, path.stat().st_size // 2)


def abstract(step: int):
    on_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=on_device), state_at(step))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints 1 and 2, sound."""
    workdir = tmp_path_factory.mktemp("two")
    save(workdir, {1: 0.1, 2: 0.2}).close()
    return workdir


@pytest.fixture
def copy(two, tmp_path):
    """Makes a copy of the folder."""

    def make(name: str = "copy") -> pathlib.Path:
        subprocess.run(["cp", "-r", two, tmp_path / name], check=True)
        return tmp_path / name

    return make


def test_a_flipped_bit_anywhere_is_found(two):
    rng = random.Random(0)
    folder = epath.Path(two / "checkpoints" / "2")
    for path in files_of(two, 2):
        size = path.stat().st_size
        for _ in range(10):
            at, bit = rng.randrange(size), rng.randrange(8)
            flip(path, at, bit)
            assert (
                integrity.damage(folder)
                == f"{path.relative_to(folder)} does not have the checksum that it was saved with"
            )
            flip(path, at, bit)
    assert integrity.damage(folder) == ""


@pytest.mark.parametrize("change", ["truncate", "delete", "empty"])
def test_a_cut_or_missing_file_is_found(two, change):
    folder = epath.Path(two / "checkpoints" / "2")
    for path in files_of(two, 2):
        whole = path.read_bytes()
        path.unlink() if change == "delete" else os.truncate(path, {"truncate": len(whole) - 1, "empty": 0}[change])
        told = "is missing" if change == "delete" else f"bytes, and was saved with {len(whole)}"
        assert told in integrity.damage(folder) and path.name in integrity.damage(folder)
        path.write_bytes(whole)


def test_a_list_that_is_damaged_itself_is_damage(two):
    path = two / "checkpoints" / "2" / integrity.MANIFEST
    whole = path.read_bytes()
    for text in (whole[:-9], b"", b"[]", b'{"files": {"a": 1}}', b"\xff" + whole):
        path.write_bytes(text)
        assert "the list of its files, cannot be read" in integrity.damage(epath.Path(path.parent))
    path.write_bytes(whole)


@pytest.mark.parametrize("name", ["../1/meta/metadata", "/etc/hostname", "state/../../1/meta/metadata"])
def test_a_list_that_names_a_file_of_elsewhere_is_damage_and_opens_nothing(two, name, monkeypatch):
    path = two / "checkpoints" / "2" / integrity.MANIFEST
    whole = path.read_bytes()
    listed = json.loads(whole)
    listed["files"] |= {name: [1, 1]}
    path.write_text(json.dumps(listed))
    monkeypatch.setattr(integrity, "_wrong_size", lambda *_: pytest.fail("it was looked for"))
    assert f"names '{name}', which is not in its folder" in integrity.damage(epath.Path(path.parent))
    path.write_bytes(whole)


def test_a_run_goes_on_from_the_checkpoint_before_and_the_step_is_saved_again(copy):
    workdir, told = copy(), []
    flip_value(workdir, 2)
    checkpoints = Checkpoints(workdir, Keep(), told.append)
    assert checkpoints.steps() == [1] and int(checkpoints.restore(abstract(1)).step) == 1
    assert len(told) == 1 and "checkpoints/2 is damaged and is not used: state/" in told[0]
    assert "now named 2.damaged. The newest whole checkpoint is step 1" in told[0]
    assert checkpoints.save(state_at(2), {"config": {"step": 2}})
    checkpoints.close()
    assert Checkpoints(workdir).newest_whole() == 2
    flip_value(workdir, 2)
    Checkpoints(workdir, Keep(), told.append).close()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2.damaged", "2.damaged+"]


def test_a_reader_passes_over_it_and_changes_nothing(copy, caplog):
    workdir = copy()
    flip_value(workdir, 2)
    names = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    checkpoints = Checkpoints(workdir)
    assert checkpoints.meta() == {"config": {"step": 1}}
    np.testing.assert_array_equal(checkpoints.restore_params()["b"]["kernel"], np.ones(4))
    assert caplog.text.count("checkpoints/2 is damaged and is not used") == 2
    with pytest.raises(UserError, match=r"2 is damaged and was not read: state/.*Other steps are \[1\]"):
        checkpoints.restore_params(2)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == names
    assert InitFrom(str(workdir)).merge(state_at(0).params).keys() == {"a", "b"}


def test_none_whole_is_an_error_and_nothing_is_renamed(copy):
    workdir = copy()
    flip_value(workdir, 2)
    os.truncate(arrays(workdir, 1), 10)
    for opened in (lambda: Checkpoints(workdir, Keep(), pytest.fail), lambda: Checkpoints(workdir).restore_params()):
        with pytest.raises(UserError, match=r"no checkpoint is whole \(step 2: .*checksum.*, step 1: .* 10 bytes.*\)"):
            opened()
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


def test_metrics_that_are_damaged_do_not_choose_what_is_kept(copy):
    workdir, told = copy(), []
    flip(workdir / "checkpoints/1/metrics/metrics", 3)
    assert Checkpoints(workdir, tell=told.append).best("recall") == 2
    checkpoints = Checkpoints(workdir, Keep(metric="recall"), told.append)
    assert checkpoints.steps() == [2] and len(told) == 2 and all("metrics/metrics" in each for each in told)
    checkpoints.close()


@pytest.mark.parametrize("keep", [None, Keep()])
def test_an_old_checkpoint_without_a_list_restores_and_it_is_said(copy, keep):
    workdir, told = copy(), []
    (workdir / "checkpoints/2" / integrity.MANIFEST).unlink()
    checkpoints = Checkpoints(workdir, keep, told.append)
    assert int(checkpoints.restore(abstract(2)).step) == 2
    assert len(set(told)) == 1 and "2 could not be checked for damage" in told[0]
    checkpoints.close()


def test_an_old_checkpoint_that_cannot_be_read_is_a_sentence(copy):
    workdir = copy()
    (workdir / "checkpoints/2" / integrity.MANIFEST).unlink()
    for path in files_of(workdir, 2):
        if path.parent.name == "d":
            os.truncate(path, path.stat().st_size // 2)
    checkpoints = Checkpoints(workdir, Keep(), lambda _: None)
    with pytest.raises(UserError, match=r"checkpoints/2 cannot be read .*To go on from an earlier one, move it"):
        checkpoints.restore(abstract(2))
    checkpoints.close()


def test_two_hosts_agree_on_what_is_damaged(copy):
    """Each looks at its share of the files, so one of them alone sees the damage."""
    workdir = copy()
    files = json.loads((workdir / "checkpoints/2" / integrity.MANIFEST).read_text())["files"]
    flip(workdir / "checkpoints/2" / sorted(files)[1], 0)
    source = f"""
        from mmjax.training.checkpoint import Checkpoints, Keep
        checkpoints = Checkpoints({str(workdir)!r}, Keep(), lambda text: print("told:", "2.damaged" in text))
        print("steps", checkpoints.steps())
        checkpoints.close()
    """
    for output in run_on_hosts(source, num_devices=1):
        assert output.endswith("told: True\nsteps [1]\n")


FULL = """
import resource, sys
import jax
from mmjax.core.errors import UserError
from mmjax.training.checkpoint import Checkpoints, Keep
from tests.training.test_checkpoint import state_at
checkpoints = Checkpoints(sys.argv[1], Keep())
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    checkpoints.save(state_at(2), {"config": {"step": 2}})
    while True:
        checkpoints.check()
except UserError as error:
    print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    checkpoints.close()
"""


@pytest.mark.parametrize("limit", [0, 100, 1000])
def test_a_save_that_the_disk_refuses_is_a_sentence_and_the_one_before_restores(tmp_path, limit):
    """No file may be longer than limit: another part of the save fails each time, as on a disk that fills up."""
    save(tmp_path, {1: None}).close()
    command = [sys.executable, "-c", FULL, str(tmp_path), str(limit)]
    done = subprocess.run(command, env=device_env(1), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for words in ("step 2", str(tmp_path / "checkpoints"), "File too large", "last complete checkpoint is step 1;"):
        assert words in done.stdout
    checkpoints = save(tmp_path, {2: None})
    assert checkpoints.steps() == [1, 2] and int(checkpoints.restore(abstract(2)).step) == 2
    checkpoints.close()


ONE_IS_FULL = """
import os, resource, sys, time
import jax
from jax.sharding import NamedSharding, PartitionSpec
from mmjax.core.errors import UserError
from mmjax.training.checkpoint import Checkpoints, Keep
from tests.training.test_checkpoint import state_at

checkpoints = Checkpoints({workdir!r}, Keep())
everywhere = NamedSharding(jax.make_mesh((2,), ("x",)), PartitionSpec())
state = jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, everywhere, lambda i: x[i]), state_at(2))
if jax.process_index() == 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    checkpoints.save(state, {{"config": {{"step": 2}}}})
    began = time.monotonic()
    while time.monotonic() - began < 60:
        checkpoints.check()
        time.sleep(0.01)
except UserError as error:
    print(error, flush=True)
    checkpoints.close()
    print("closed", flush=True)
    os._exit(0)
print("nothing was said", flush=True)
os._exit(0)
"""


def test_where_one_of_two_hosts_is_full_it_says_so_at_once_and_waits_for_nobody(tmp_path):
    """Orbax's own threads wait for the other process for as long as an hour."""
    save(tmp_path, {1: None}).close()
    running = start_on_hosts(ONE_IS_FULL.format(workdir=str(tmp_path)), num_devices=1)
    try:
        said = running[0].communicate(timeout=50)[0]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert "checkpoint of step 2 could not be written" in said and "File too large" in said, said
    assert said.endswith("closed\n")
    assert integrity.complete_steps(epath.Path(tmp_path / "checkpoints")) == [1]


def test_trouble_of_reading_is_tried_again_and_is_no_damage(copy, monkeypatch):
    workdir, pauses, failing = copy(), [], [1]
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    whole = integrity._sum

    def stale(file):
        if "ocdbt" in file.name and failing[0] > 0:
            failing[0] -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return whole(file)

    monkeypatch.setattr(integrity, "_sum", stale)
    checkpoints = Checkpoints(workdir, Keep(), pytest.fail)
    assert checkpoints.steps() == [1, 2] and pauses
    checkpoints.close()
    failing[0] = 10**9
    with pytest.raises(TemporaryError, match=r"checkpoints/2 cannot be read: 5 attempts .* Stale file handle"):
        Checkpoints(workdir, Keep(), pytest.fail)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]


def test_a_save_that_failed_does_not_end_in_a_checkpoint_when_the_disk_has_space_again(tmp_path, monkeypatch):
    """The failure is seen in the foreground, while the background still writes and then could finish."""
    save(tmp_path, {1: None}).close()
    checkpoints = Checkpoints(tmp_path, Keep())

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints._manager, "_add_checkpoint_info", refuse)
    with pytest.raises(UserError, match=r"step 2 could not be written .*No space left on device"):
        checkpoints.save(state_at(2), {"config": {"step": 2}})
    checkpoints.close()
    assert integrity.complete_steps(checkpoints.directory) == [1]
