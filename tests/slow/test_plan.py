"""A million pairs a step on 256 chips, as the TPU compiler sees it: minutes of compiling."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from benchmarks.plan_siglip import ROWS
from tests.devices import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_batch_of_a_million_fits_with_gradient_caching():
    (row,) = (row for row in ROWS if row.batch == 2**20)
    environment = os.environ | {"XLA_FLAGS": "", "TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mmjax", *row.command()], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["devices"] == 256 and found["batch_size"] == 2**20 and found["micro_batches"] == 64
    assert found["fits"] and found["memory"]["needed"] < 16e9
