"""All processes of a job: do they agree, and how fast do they talk?"""

from __future__ import annotations

import importlib.metadata
import platform
import socket
import statistics
import time
import zlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core.mesh import make_mesh
from mmjax.doctor.findings import DOUBTFUL, FINE, WRONG, Finding

PACKAGES = ("mmjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
SLOW = 1e9
"""Bytes a second below which the gradients of 100 M parameters take longer than most steps."""


def processes() -> Iterator[Finding]:
    """Yields how many processes there are, and those that differ from process 0."""
    number = jax.process_count()
    yield Finding("processes", f"{number}; this is {jax.process_index()}, on {socket.gethostname()}")
    if number == 1:
        return
    versions = f"{platform.python_version()} {[importlib.metadata.version(name) for name in PACKAGES]}"
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
    """Yields the bandwidth of an all-reduce of `megabytes` a device over all devices, and whether it sums.

    By the ring algorithm a device sends 2 (n - 1) / n of its bytes.
    """
    count = jax.device_count()
    if count == 1:
        return
    mesh = make_mesh()  # all on its data axis
    size = megabytes * 2**20 // 4
    numbers = jax.jit(
        lambda: jnp.broadcast_to(jnp.arange(count, dtype=jnp.float32)[:, None], (count, size)),
        out_shardings=NamedSharding(mesh, P("data")),
    )()
    add = jax.jit(jax.shard_map(lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=P("data"), out_specs=P()))
    total = float(add(numbers).addressable_shards[0].data[0, -1])
    if total != (expected := count * (count - 1) / 2):
        found = f"gives {total:g} instead of {expected:g}"
        yield Finding("all-reduce", found, WRONG, "a device or a link is broken: leave it out")
        return
    seconds = []
    for _ in range(rounds):
        begin = time.monotonic()
        add(numbers).block_until_ready()
        seconds.append(time.monotonic() - begin)
    speed = 2 * (count - 1) / count * 4 * size / statistics.median(seconds)
    slow = jax.process_count() > 1 and speed < SLOW
    advice = "keep mesh.fsdp and mesh.tensor within a host, and look at the network between the hosts" if slow else ""
    found = f"{speed / 1e9:,.1f} GB/s a device over {count} devices, {megabytes} MB each"
    yield Finding("all-reduce", found, DOUBTFUL if slow else FINE, advice)
