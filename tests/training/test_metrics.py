"""What is written of the metrics, and that it is let go."""

import contextlib
import json
import sys

from mmjax.training.metrics import MetricWriter


def test_what_was_written_is_let_go(tmp_path):
    """TensorFlow keeps every Python number that becomes a tensor, for good: a week of metrics would be a leak."""
    value = 0.1 + len(str(tmp_path)) / 1e9
    with contextlib.closing(MetricWriter(tmp_path, 0)) as writer:
        before = sys.getrefcount(value)
        for step in range(3):
            writer.write(step, {"loss": value})
        assert sys.getrefcount(value) == before
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == [{"step": step, "loss": value} for step in range(3)]
