"""Evaluators: padding and missing rows leave no trace, many captions work, sharded embeddings are the same."""

import json

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.evaluator import RetrievalEvaluator, collect, unit
from mmjax.evaluation.retrieval import retrieval
from tests.devices import run_on_hosts

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


GATHER = """
import numpy as np
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.evaluator import collect
from mmjax.training.sharding import global_batch, local_rows

def embed(batch):
    return {"image": batch.streams["image"].values}

def batches(mesh, rows):
    for start in (0, 8):
        records = start + rows
        values = np.repeat(records[:, None], 3, axis=1).astype(np.float32)
        stream = Stream(values, np.ones((len(rows), 1), bool))
        yield global_batch(Batch({"image": stream}, records.astype(np.int32), records < 14), 8, mesh)

def gathered(sizes, order):
    mesh = make_mesh(MeshShape(**sizes), [jax.devices()[i] for i in order])
    rows = local_rows(8, mesh)
    found = collect(embed, batches(mesh, rows), ["image"])["image"]
    assert sorted(found.group) == list(range(14)), found.group
    assert np.array_equal(found.values, np.repeat(found.group[:, None], 3, axis=1)), found
    return rows.tolist()

print("rows", [gathered(*case) for case in CASES])
"""


def test_two_hosts_gather_every_row_once():
    cases = [
        ({"fsdp": 2}, [0, 1, 2, 3], [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ({"fsdp": 2}, [0, 2, 1, 3], [[0, 1, 4, 5], [2, 3, 6, 7]]),  # as make_mesh orders some TPU slices
        ({"fsdp": 1, "tensor": 4}, [0, 1, 2, 3], [list(range(8))] * 2),  # both hosts hold every row
    ]
    source = GATHER.replace("CASES", repr([case[:2] for case in cases]))
    first, second = (json.loads(out.rpartition("rows ")[2]) for out in run_on_hosts(source, num_devices=2))
    assert [list(rows) for rows in zip(first, second, strict=True)] == [rows for _, _, rows in cases]
