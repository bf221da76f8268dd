"""The speed of a config's input pipeline on this machine."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time

import fiddle as fdl

from mmjax.training.experiment import build
from mmjax.training.prepare import prepare_data


def pipeline_rate(config: fdl.Config, seconds: float = 5.0) -> float:
    """Returns the examples a second that the pipeline of an Experiment's config makes here, over about `seconds`.

    What a run prepares before its first step, such as a tokenizer, is made and thrown away.

    Raises:
      UserError: anything wrong with the data.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = prepare_data(build(config).data, pathlib.Path(folder), {})
        data = dataclasses.replace(data, batch_size=min(data.batch_size, 256), bad_log=None)
        batches = data.train()
        try:
            next(batches)
            begin, done = time.monotonic(), 0
            while time.monotonic() - begin < seconds:
                next(batches)
                done += data.batch_size
            return done / (time.monotonic() - begin)
        finally:
            batches.close()
