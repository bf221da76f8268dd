"""Four processes: one is killed, all are asked to stop, they go on on other devices; nothing is lost or changed."""

import json
import pathlib
import signal

import jax
import numpy as np
import pytest

from mmjax.training.checkpoint import Checkpoints
from tests.slow import ledger, ring_job

pytestmark = pytest.mark.slow
STEPS = 60
FIXED = [f"duration={STEPS}"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("data")
    ledger.write_data(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data) -> pathlib.Path:
    """A run of four processes that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    running = ledger.start(workdir, data, processes=4, settings=FIXED)
    assert ledger.finish(running, 900) == [0] * 4, ledger.logs(workdir)
    return workdir


def losses(workdir: pathlib.Path) -> dict[int, float]:
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def check_same(workdir: pathlib.Path, whole: pathlib.Path, data: pathlib.Path) -> None:
    """Asserts that a run ended with the books, losses and parameters of the undisturbed one, to the bit."""
    step, counts, digest = ledger.books(workdir)
    planned, planned_digest = ledger.plan(data, STEPS)
    assert step == STEPS and digest == planned_digest
    np.testing.assert_array_equal(counts, planned)
    assert losses(workdir) == losses(whole)
    params = [Checkpoints(each).restore_params() for each in (workdir, whole)]
    jax.tree.map(np.testing.assert_array_equal, *params)


@pytest.mark.parametrize("victim", [2, 0])
def test_the_others_stop_with_a_sentence_when_one_is_killed(tmp_path, data, whole, victim):
    workdir = tmp_path / "run"
    running = ledger.start(workdir, data, processes=4, settings=FIXED)
    ledger.wait_for_step(running, workdir, 25)
    running[victim].kill()
    codes = ledger.finish(running, 60)
    survivors = [number for number in range(4) if number != victim]
    assert all(codes[number] not in (0, -signal.SIGKILL) for number in survivors), codes
    for number in survivors:
        said = ledger.log(workdir, number).read_text()
        assert f"mmjax: process {number} of 4 stops: " in said and "same command" in said, said
        assert "Traceback" not in said and "stack trace" not in said and "Check failure" not in said, said
    running = ledger.start(workdir, data, processes=4, settings=FIXED)
    assert ledger.finish(running, 900) == [0] * 4, ledger.logs(workdir)
    assert "resumed everything from step" in ledger.log(workdir, 0).read_text()
    check_same(workdir, whole, data)


def test_sigterm_to_all_saves_one_step_and_the_restart_goes_on(tmp_path, data, whole):
    workdir = tmp_path / "run"
    settings = [*FIXED, "keep.every=1000"]
    running = ledger.start(workdir, data, processes=4, settings=settings)
    ledger.wait_for_step(running, workdir, 12)
    for process in running:
        process.send_signal(signal.SIGTERM)
    assert ledger.finish(running, 300) == [75] * 4, ledger.logs(workdir)
    (step,) = Checkpoints(workdir).steps()
    for number in range(4):
        said = ledger.log(workdir, number).read_text()
        assert f"asked to stop: saved step {step};" in said and "Traceback" not in said
        assert "killed or crashed" not in said
    running = ledger.start(workdir, data, processes=4, settings=settings)
    assert ledger.finish(running, 900) == [0] * 4, ledger.logs(workdir)
    assert f"resumed everything from step {step}" in ledger.log(workdir, 0).read_text()
    check_same(workdir, whole, data)


def test_restarts_on_other_devices_and_processes_take_the_same_examples(tmp_path, data, whole):
    workdir = tmp_path / "run"
    rows = [(1, 1), (1, 8), (2, 1), (1, 2), (4, 1), (2, 4)]
    for number, (processes, devices) in enumerate(rows, 1):
        until = STEPS * number // len(rows)
        settings = [f"duration={until}"]
        running = ledger.start(workdir, data, processes=processes, devices=devices, settings=settings)
        assert ledger.finish(running, 900) == [0] * processes, ledger.logs(workdir)
        found = ledger.books(workdir)
        planned, digest = ledger.plan(data, until)
        assert found[0] == until and found[2] == digest
        np.testing.assert_array_equal(found[1], planned)
    expected, found = losses(whole), losses(workdir)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def test_the_ring_loss_goes_on_with_sharded_parameters_on_two_processes(tmp_path):
    """One device for 4 steps; then two processes of two devices, over which parameters and moments are cut in two."""
    options = {"data": None, "config": ring_job.__file__}
    for name, rows in (("whole", [(1, 1, 8, 1)]), ("moved", [(1, 1, 4, 1), (2, 2, 8, 2)])):
        for processes, devices, until, fsdp in rows:
            settings = [f"duration={until}", f"mesh.fsdp={fsdp}", "optimizer.schedule.kind=constant"]
            running = ledger.start(tmp_path / name, processes=processes, devices=devices, settings=settings, **options)
            assert ledger.finish(running, 900) == [0] * processes, ledger.logs(tmp_path / name)
    said = ledger.log(tmp_path / "moved", 0).read_text()
    assert "mesh {'data': 2, 'fsdp': 2, 'tensor': 1}" in said and "resumed everything from step 4" in said
    expected, found = losses(tmp_path / "whole"), losses(tmp_path / "moved")
    assert list(found) == list(expected) == list(range(1, 9))
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
