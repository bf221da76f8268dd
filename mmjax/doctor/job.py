"""All processes of a job: do they agree, and how fast do they talk?"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import platform
import socket
import statistics
import time
import zlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core.mesh import make_mesh
from mmjax.doctor.findings import DOUBTFUL, FINE, WRONG, Finding
from mmjax.doctor.machine import version

PACKAGES = ("mmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
SLOW = 1e9
"""Bytes a second below which the gradients of 100 M parameters take longer than most steps."""


def processes() -> Iterator[Finding]:
    """Yields how many processes there are, and those that differ from process 0."""
    number = jax.process_count()
    yield Finding("processes", f"{number}; this is {jax.process_index()}, on {socket.gethostname()}")
    if number == 1:
        return
    versions = f"{platform.python_version()} {[version(name) for name in PACKAGES]}"
    own = np.array([zlib.crc32(versions.encode()), jax.local_device_count()], np.uint32)
    yield from disagreements(np.asarray(multihost_utils.process_allgather(own)))


def disagreements(seen: np.ndarray) -> Iterator[Finding]:
    """Yields what differs from process 0 among rows of (checksum of the versions, devices), one row a process."""
    for column, what, advice in (
        (0, "packages", "install the same versions everywhere"),
        (1, "devices", "every process must see as many"),
    ):
        other = np.flatnonzero(seen[:, column] != seen[0, column]).tolist()
        if other:
            yield Finding(f"{what} of processes", f"those of {other} differ from process 0's", WRONG, advice)


def collectives(megabytes: int = 32, rounds: int = 5) -> Iterator[Finding]:
    """Yields the bandwidth of each collective on `megabytes` a device over all devices, and whether it is right.

    By the ring algorithms a device of n sends 2 (n - 1) / n of its bytes in an all-reduce, n - 1 times its own in an
    all-gather (of `megabytes` in all), and its bytes once in a permutation.
    """
    count = jax.device_count()
    if count == 1:
        return
    mesh = Mesh(make_mesh().devices.reshape(-1), ("all",), axis_types=(AxisType.Auto,))
    size = max(megabytes * 2**20 // 4 // count, 1) * count
    for kind, (act, rows, expected, sent) in _kinds(count, size).items():
        placed = NamedSharding(mesh, P("all"))
        numbers = jax.jit(functools.partial(_numbers, count, rows), out_shardings=placed)()
        run = jax.jit(jax.shard_map(act, mesh=mesh, in_specs=P("all"), out_specs=P("all"), check_vma=False))
        wrong = _wrong(run(numbers), expected)  # perhaps here alone, so the others are not left waiting in what follows
        seconds = _seconds(lambda run=run, numbers=numbers: run(numbers), rounds)
        broken = Finding(kind, wrong, WRONG, "a device or a link is broken: leave it out")
        yield broken if wrong else _speed(kind, sent / seconds, count, megabytes)


def shared(folder: pathlib.Path, seconds: float = 5.0) -> Iterator[Finding]:
    """Yields (process 0 alone) whether what process 0 writes in a folder is seen by all processes within `seconds`.

    Every process calls it, also one that cannot use the folder.
    """
    if jax.process_count() == 1:
        return
    name = f".doctor_{int(multihost_utils.broadcast_one_to_all(np.int32(time.time_ns() % 2**31))):08x}"
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):
            (folder / name).touch(exist_ok=False)
    multihost_utils.sync_global_devices("doctor: written")
    end = time.monotonic() + seconds
    while not (seen := os.path.exists(folder / name)) and time.monotonic() < end:
        time.sleep(0.1)
    blind = np.flatnonzero(~np.asarray(multihost_utils.process_allgather(np.array(seen)))).tolist()
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        found = f"processes {blind} do not see what process 0 writes there" if blind else "all processes see the same"
        advice = "mount one file system there on all hosts" if blind else ""
        yield Finding(f"folder {folder} of all", found, WRONG if blind else FINE, advice)


Act = Callable[[jax.Array], jax.Array]


def _kinds(count: int, size: int) -> dict[str, tuple[Act, int, Callable[[int], float], float]]:
    """Returns kind -> (what a device does with its [1, rows], rows, its last number, bytes that it sends)."""
    ring = [(device, (device + 1) % count) for device in range(count)]
    part = size // count
    return {
        "all-reduce": (
            lambda x: jax.lax.psum(x, "all"),
            size,
            lambda _: count * (count - 1) / 2,
            2 * (count - 1) / count * 4 * size,
        ),
        "all-gather": (
            lambda x: jax.lax.all_gather(x, "all", axis=1, tiled=True),
            part,
            lambda _: count - 1,
            (count - 1) * 4 * part,
        ),
        "collective-permute": (
            lambda x: jax.lax.ppermute(x, "all", ring),
            size,
            lambda device: (device - 1) % count,
            4 * size,
        ),
    }


def _numbers(count: int, rows: int) -> jax.Array:
    """Returns [count, rows] float32, whose row i is i everywhere."""
    return jnp.broadcast_to(jnp.arange(count, dtype=jnp.float32)[:, None], (count, rows))


def _wrong(found: jax.Array, expected: Callable[[int], float]) -> str:
    """Returns what is wrong with the last number of the rows that this process holds, '' for nothing."""
    for shard in found.addressable_shards:
        number, wanted = float(shard.data[0, -1]), expected(shard.index[0].start or 0)
        if number != wanted:
            return f"gives {number:g} instead of {wanted:g} on {shard.device}"
    return ""


def _seconds(run: Callable[[], jax.Array], rounds: int) -> float:
    """Returns the median of `rounds` calls."""
    seconds = []
    for _ in range(rounds):
        begin = time.monotonic()
        run().block_until_ready()
        seconds.append(time.monotonic() - begin)
    return statistics.median(seconds)


def _speed(kind: str, speed: float, count: int, megabytes: int) -> Finding:
    """Returns the finding on a collective that sends `speed` bytes a second from each device."""
    slow = jax.process_count() > 1 and speed < SLOW
    advice = "keep mesh.fsdp and mesh.tensor within a host, and look at the network between the hosts" if slow else ""
    found = f"{speed / 1e9:,.1f} GB/s a device over {count} devices, {megabytes} MB each"
    return Finding(kind, found, DOUBTFUL if slow else FINE, advice)
