"""Forty minutes with a fault every two: no example is lost or doubled against the sampler's plan, memory stays flat.

Memory is that of a second job beside it, which nothing disturbs for all that time. It saves every thousand steps, a few
times a minute: TensorStore keeps some 25 kB of each save for good, which at a save every fifty tiny steps is all that
a job grows by.

MMJAX_SOAK_MINUTES (40), MMJAX_SOAK_INTERVAL (120 seconds between faults) and MMJAX_SEED (0) change it. It runs as

    pytest -m slow -n 0 -s tests/slow/test_soak.py
"""

from __future__ import annotations

import os
import pathlib
import random
import resource
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from mmjax.training.checkpoint import Checkpoints
from tests.slow import ledger

pytestmark = pytest.mark.slow
MINUTES = float(os.environ.get("MMJAX_SOAK_MINUTES", "40"))
INTERVAL = float(os.environ.get("MMJAX_SOAK_INTERVAL", "120"))
WARM_UP = 0.2  # of the time in which memory is looked at
SETTINGS = ["keep.every=50", "log_every=10"]
STEADY = ["keep.every=1000", "log_every=10"]


class Soak:
    """One job, its faults, and what was seen."""

    def __init__(self, folder: pathlib.Path, rng: random.Random):
        self.workdir, self.data, self.rng = folder / "run", folder / "data", rng
        self.injected: Counter[str] = Counter()
        self.devices = 1
        ledger.write_data(self.data)
        ledger.write_data(folder / "steady_data")
        (self.steady,) = ledger.start(folder / "steady", folder / "steady_data", devices=1, settings=STEADY)
        ledger.wait_for_step([self.steady], folder / "steady", 20)
        self.memory: list[int] = []  # bytes of the steady job, about once a second
        self.start()

    def start(self) -> None:
        """Starts the next life."""
        (self.job,) = ledger.start(self.workdir, self.data, devices=self.devices, settings=SETTINGS)
        ledger.wait_for_step([self.job], self.workdir, ledger.last_step(self.workdir) + 20)

    def live(self, until: float) -> None:
        """Lets both jobs run until then, and looks at memory."""
        while time.monotonic() < until:
            assert self.job.poll() is None, ledger.logs(self.workdir)[-3000:]
            assert self.steady.poll() is None, ledger.logs(self.workdir.with_name("steady"))[-3000:]
            pages = int(pathlib.Path(f"/proc/{self.steady.pid}/statm").read_text().split()[1])
            self.memory.append(pages * resource.getpagesize())
            time.sleep(1)

    def ended(self, code: int, words: str = "") -> None:
        """Waits for the end of this life, which must be with this code and these words."""
        assert ledger.finish([self.job], 180) == [code], ledger.logs(self.workdir)[-3000:]
        assert words in ledger.logs(self.workdir)[-3000:]

    def kill(self) -> None:
        """kill -9."""
        self.job.kill()
        self.ended(-signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM."""
        self.job.terminate()
        self.ended(75, "asked to stop")

    def other_devices(self) -> None:
        """A kill, and the restart on another number of devices."""
        self.kill()
        self.devices = self.rng.choice([count for count in (1, 2, 4, 8) if count != self.devices])

    def cut_checkpoint(self) -> None:
        """A kill, and the newest checkpoint's largest file is cut while the job is down."""
        self.kill()
        folder = self.workdir / "checkpoints"
        steps = Checkpoints(self.workdir).steps()
        if len(steps) > 1:
            largest = max((folder / str(steps[-1]) / "state").rglob("*"), key=lambda path: path.stat().st_size)
            os.truncate(largest, self.rng.randrange(largest.stat().st_size))
        self.injected["(checkpoint cut)"] += len(steps) > 1

    def cut_shard(self) -> None:
        """A data shard is cut under the running job, which stops; the shard is put back."""
        path = self.data / f"{self.rng.randrange(ledger.SHARDS)}.tar"
        whole, times = path.read_bytes(), path.stat()
        os.truncate(path, 512)
        self.ended(2, "max_bad_share")
        path.write_bytes(whole)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def full_disk(self) -> None:
        """The metrics, the longest file, may grow no more, as on a full disk; the job stops."""
        longest = (self.workdir / "metrics.jsonl").stat().st_size
        resource.prlimit(self.job.pid, resource.RLIMIT_FSIZE, (longest, resource.RLIM_INFINITY))
        self.ended(2, "File too large")

    def fault(self) -> None:
        """One of them, and the next life."""
        faults: list[Callable[[], None]] = [
            self.kill, self.stop, self.other_devices, self.cut_checkpoint, self.cut_shard, self.full_disk
        ]  # fmt: skip
        chosen = self.rng.choice([each for each in faults if self.injected[each.__name__] == self._least(faults)])
        self.injected[chosen.__name__] += 1
        chosen()
        self.start()

    @property
    def faults(self) -> int:
        """How many there were."""
        return sum(count for name, count in self.injected.items() if name.isidentifier())

    def _least(self, faults: list[Callable[[], None]]) -> int:
        return min(self.injected[each.__name__] for each in faults)


def test_soak(tmp_path, record_property):
    soak = Soak(tmp_path, random.Random(int(os.environ.get("MMJAX_SEED", "0"))))
    try:
        began = time.monotonic()
        for number in range(1, int(60 * MINUTES / INTERVAL) + 1):
            soak.live(began + INTERVAL * number)
            soak.fault()
        soak.stop()
    finally:
        soak.job.kill()
        soak.steady.kill()
    step, counts, digest = ledger.books(soak.workdir)
    planned, planned_digest = ledger.plan(soak.data, step)
    warm = soak.memory[int(WARM_UP * len(soak.memory)) :]
    first, last = statistics.median(warm[: len(warm) // 3]), statistics.median(warm[-(len(warm) // 3) :])
    damaged = len(list((soak.workdir / "checkpoints").glob("*.damaged*")))
    report = f"{MINUTES:g} minutes, step {step}, {soak.faults} faults: {dict(soak.injected)}, {damaged} damaged "
    report += f"checkpoints set aside, the steady job {first / 1e6:.1f} MB to {last / 1e6:.1f} MB over {len(warm)} s"
    (tmp_path / "report.txt").write_text(report)
    record_property("found", report)
    subprocess.run(["echo", report], check=True)
    np.testing.assert_array_equal(counts, planned, err_msg=report)
    assert digest == planned_digest, report
    assert damaged == soak.injected["(checkpoint cut)"], report
    assert soak.faults == int(60 * MINUTES / INTERVAL), report
    assert last <= 1.02 * first, report
