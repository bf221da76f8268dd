"""Evaluators: padding and missing rows leave no trace, many captions work, sharded embeddings are the same."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.evaluator import RetrievalEvaluator, collect, unit
from mmjax.evaluation.retrieval import retrieval
from tests.devices import run_on_devices

WIDTH = 6


def _stream(values, present=None):
    present = np.ones(len(values), bool) if present is None else present
    return Stream(values, np.repeat(present[:, None], 2, axis=1))


def _batches(groups, size, **tables):
    """Batches of `size` rows, the last padded with NaN; table[i] is the row of groups[i]."""
    for start in range(0, len(groups), size):
        rows = np.arange(start, min(start + size, len(groups)))
        short = size - len(rows)
        mask = np.arange(size) < len(rows)
        streams = {
            name: _stream(np.concatenate([x[rows], np.full((short, WIDTH), np.nan, np.float32)]), mask)
            for name, x in tables.items()
        }
        group = np.concatenate([groups[rows], np.zeros(short, np.int32)])
        yield Batch(streams, group, mask, {"label": group % 3})


def _embed(batch):
    return {name: stream.values for name, stream in batch.streams.items()}


@pytest.fixture
def tables():
    rng = np.random.default_rng(0)
    images = unit(rng.normal(size=(11, WIDTH)))
    texts = unit(np.repeat(images, 5, axis=0) + 0.8 * rng.normal(size=(55, WIDTH)))
    return images, texts, np.arange(11, dtype=np.int32), np.repeat(np.arange(11, dtype=np.int32), 5)


def test_one_caption_a_record_equals_the_plain_function(tables):
    images, texts, image_group, _ = tables
    found = RetrievalEvaluator(chunk=4)(_embed, _batches(image_group, 4, image=images, text=texts[::5]))
    assert found == retrieval(images, texts[::5], image_group, image_group)
    assert 1 / 11 < found["mean_recall_at_1"] < 1


def test_every_caption_of_every_picture(tables):
    images, texts, image_group, text_group = tables
    pictures, captions = _batches(image_group, 4, image=images), _batches(text_group, 7, text=texts)
    found = RetrievalEvaluator(ks=(1, 2))(_embed, pictures, captions)
    assert found == retrieval(images, texts, image_group, text_group, ks=(1, 2))


def test_a_record_that_lacks_a_modality_is_left_out_on_both_sides(tables):
    images, texts, group, _ = tables
    texts = texts[::5]
    has_text = group != 3
    streams = {"image": _stream(images), "text": _stream(np.where(has_text[:, None], texts, np.nan), has_text)}
    found = RetrievalEvaluator()(_embed, [Batch(streams, group, np.ones(11, bool))])
    assert found == retrieval(images[has_text], texts[has_text], group[has_text], group[has_text])


def test_collect_keeps_order_and_targets(tables):
    images, _, group, _ = tables
    found = collect(_embed, _batches(group, 4, image=images), ["image"])["image"]
    np.testing.assert_array_equal(found.values, images)
    np.testing.assert_array_equal(found.group, group)
    np.testing.assert_array_equal(found.target("label"), group % 3)
    with pytest.raises(UserError, match=r"no target 'labels'\. Did you mean 'label'"):
        found.target("labels")


def test_user_errors(tables):
    images, _, group, _ = tables
    with pytest.raises(UserError, match=r"no embedding of 'images'\. Did you mean 'image'"):
        collect(_embed, _batches(group, 4, image=images), ["images"])
    with pytest.raises(UserError, match="no batches"):
        collect(_embed, [], ["image"])


def test_unit_keeps_a_zero_vector():
    np.testing.assert_array_equal(unit(np.array([[0.0, 0.0], [3.0, 4.0]])), np.array([[0, 0], [0.6, 0.8]], np.float32))


TWO_HOSTS = """
import os, subprocess, sys
import numpy as np
WORKER = '''
import sys, jax, numpy as np
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, int(sys.argv[1]))
from mmjax.core.mesh import MeshShape, batch_sharding, make_mesh
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.evaluator import collect
host, sharding = jax.process_index(), batch_sharding(make_mesh(MeshShape(fsdp=2, tensor=2)))
def embed(batch):
    return {"image": jax.make_array_from_process_local_data(sharding, batch.streams["image"].values)}
def batches():
    for start in (0, 8):
        rows = start + 4 * host + np.arange(4)
        values = np.repeat(rows[:, None], 3, axis=1).astype(np.float32)
        yield Batch({"image": Stream(values, np.ones((4, 1), bool))}, rows.astype(np.int32), rows < 14)
found = collect(embed, batches(), ["image"])["image"]
assert sorted(found.group) == list(range(14)), found.group
assert np.array_equal(found.values, np.repeat(found.group[:, None], 3, axis=1)), found
print("gathered", len(found.group), jax.process_count(), len(jax.devices()))
'''
import socket
with socket.socket() as s:
    s.bind(("localhost", 0)); port = str(s.getsockname()[1])
worker = [sys.executable, "-c", WORKER]
hosts = [subprocess.Popen([*worker, str(i), port], stdout=subprocess.PIPE, text=True) for i in (0, 1)]
for host in hosts:
    print(host.communicate(timeout=120)[0])
    assert host.returncode == 0
"""


def test_two_hosts_gather_every_row():
    out = run_on_devices(TWO_HOSTS, 4)
    assert out.count("gathered 14 2 8") == 2
