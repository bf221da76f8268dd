"""Run a piece of Python on several simulated CPU devices, in one process of its own or in several."""

import os
import pathlib
import socket
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).parent.parent
OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Compiler options with which small programs compile in a sixth of the time, and big ones would run slowly."""
QUICK = " ".join(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items())
"""The same as XLA_FLAGS."""


def device_env(num_devices: int) -> dict[str, str]:
    """Returns an environment in which JAX sees num_devices CPU devices, and compiles as this process does."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={num_devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}


def run_on_devices(source: str, num_devices: int = 8, timeout: float = 600) -> str:
    """Runs Python source with num_devices simulated devices; returns its stdout, fails with its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env=device_env(num_devices),
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_on_hosts(source: str, num_processes: int = 2, num_devices: int = 4) -> list[subprocess.Popen]:
    """Starts Python source in processes that see one another's devices; their output is read from `stdout`."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    sources = [
        f"import jax\njax.distributed.initialize({address!r}, {num_processes}, {number})\n{textwrap.dedent(source)}"
        for number in range(num_processes)
    ]
    options = {"env": device_env(num_devices), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [subprocess.Popen([sys.executable, "-c", each], cwd=ROOT, **options) for each in sources]


def run_on_hosts(source: str, num_processes: int = 2, num_devices: int = 4, timeout: float = 300) -> list[str]:
    """Runs Python source as `start_on_hosts` does; returns each one's output."""
    running = start_on_hosts(source, num_processes, num_devices)
    try:
        found = [process.communicate(timeout=timeout)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert not any(process.returncode for process in running), "\n".join(found)
    return found
