"""One compilation cache for the whole test session: its workers and subprocesses compile a program once."""

import os
import shutil
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Makes the cache before jax is imported; whoever made it removes it."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="mmjax-jit-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
