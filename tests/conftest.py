"""What the test session compiles: quickly (the `slow` tests as users do), and once for its workers and subprocesses."""

import os
import shutil
import tempfile

import pytest

from tests.devices import QUICK


def pytest_configure(config: pytest.Config) -> None:
    """Sets flags and makes the cache before jax is imported; whoever made the cache removes it."""
    if "not slow" in config.getoption("markexpr"):
        os.environ.setdefault("XLA_FLAGS", QUICK)  # XLA_FLAGS="" pytest: as users compile
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="mmjax-jit-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
