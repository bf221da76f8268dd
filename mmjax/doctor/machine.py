"""This machine: packages, cores and limits, devices, and the file system of a folder."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator

import jax
from packaging.requirements import Requirement

from mmjax.core.accelerators import idle_accelerators
from mmjax.doctor.findings import DOUBTFUL, FINE, WRONG, Finding

CORES_PER_DEVICE = 4
"""An accelerator takes more pictures than fewer cores can decode."""
OPEN_FILES = 4096
"""That a run may want at once: shards, connections, libraries."""
FREE_GB = 20.0
"""Below this a folder is soon full: a checkpoint of a 1 G-parameter model with its optimizer takes 12 GB."""
PROBE_MB = 256
ABSENT = "(not installed)"


def version(name: str) -> str:
    """Returns the version of an installed package, or ABSENT."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT


def packages(distribution: str = "mmjax") -> Iterator[Finding]:
    """Yields the versions that matter, and every requirement of a distribution's core that is not met."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets")
    known = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding("packages", f"Python {platform.python_version()}, {known}")
    try:
        requirements = importlib.metadata.requires(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        found = "runs from a folder and is not installed, so what it needs cannot be compared with what is here"
        yield Finding(distribution, found, DOUBTFUL, "pip install -e FOLDER")
        return
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        here = version(requirement.name)
        if here == ABSENT:
            yield Finding(requirement.name, "is not installed", WRONG, f"pip install '{wanted}'")
        elif not requirement.specifier.contains(here, prereleases=True):
            found = f"{here}, but {distribution} needs {requirement.specifier}"
            yield Finding(requirement.name, found, WRONG, f"pip install '{wanted}'")


def host() -> Iterator[Finding]:
    """Yields the cores and the limits of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = jax.local_device_count()
    few = jax.default_backend() != "cpu" and cores < CORES_PER_DEVICE * count
    advice = "ask for more, or train on pictures that are resized already" if few else ""
    yield Finding("cores", f"{cores} for {count} devices", DOUBTFUL if few else FINE, advice)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = 0 <= soft < OPEN_FILES
    advice = f"ulimit -n {min(OPEN_FILES, hard) if hard >= 0 else OPEN_FILES}" if low else ""
    yield Finding("open files", f"at most {soft:,}", DOUBTFUL if low else FINE, advice)


def devices() -> Iterator[Finding]:
    """Yields what JAX computes on, and accelerators that it does not use."""
    local, backend = jax.local_devices(), jax.default_backend()
    limit = (local[0].memory_stats() or {}).get("bytes_limit")
    memory = f", {limit / 2**30:.1f} GiB each" if limit else ""
    yield Finding("devices", f"{len(local)} of {jax.device_count()} here: {backend}, {local[0].device_kind}{memory}")
    for name, install in idle_accelerators().items():
        yield Finding(name, "is here, but JAX computes on the CPU", WRONG, install)


def folder(path: pathlib.Path) -> Iterator[Finding]:
    """Yields whether a folder takes files, how fast it writes and reads, and how much room there is.

    What is read was just written, so a system that keeps files in memory reads them from there.
    """
    what = f"folder {path}"
    try:
        written, read, whole = _probe(path)
    except OSError as error:
        found = f"does not take files ({error.strerror})"
        yield Finding(what, found, WRONG, "choose another --workdir, or mend its rights")
        return
    if not whole:
        yield Finding(what, "gives back other bytes than were written", WRONG, "do not train on this file system")
        return
    free = shutil.disk_usage(path).free / 1e9
    low = free < FREE_GB
    advice = "checkpoints take 12 bytes a parameter: make room, or keep fewer (keep.last)" if low else ""
    found = f"writes {PROBE_MB / written:,.0f} MB/s, reads {PROBE_MB / read:,.0f} MB/s, {free:,.1f} GB free"
    yield Finding(what, found, DOUBTFUL if low else FINE, advice)


def _probe(path: pathlib.Path) -> tuple[float, float, bool]:
    """Writes PROBE_MB to a file that is then deleted; returns the seconds to write and to read, and if it came back."""
    block = os.urandom(2**20)
    with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor_") as probe:
        begin = time.monotonic()
        for _ in range(PROBE_MB):
            probe.write(block)
        probe.flush()
        os.fsync(probe.fileno())
        written = time.monotonic()
        probe.seek(0)
        whole = all(probe.read(2**20) == block for _ in range(PROBE_MB))
        return written - begin, time.monotonic() - written, whole
