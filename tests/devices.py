"""Run a piece of Python on several simulated CPU devices, in a process of its own."""

import os
import pathlib
import subprocess
import sys
import textwrap

ROOT = pathlib.Path(__file__).parent.parent


def device_env(num_devices: int) -> dict[str, str]:
    """Returns an environment in which JAX sees num_devices CPU devices."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
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
