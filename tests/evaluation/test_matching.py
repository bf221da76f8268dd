"""Matching: pairs against mismatches, with padding, missing halves and near relatives left out."""

import json

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.matching import MatchingEvaluator
from tests.devices import run_on_devices, run_on_hosts


def batches():
    """Two batches of six: values are equal in a pair; row 4 lacks its text, row 5 is padding, 2 and 3 are one group."""
    for start in (0, 10):
        values = (start + np.arange(6.0, dtype=np.float32))[:, None]
        image, text = np.ones((6, 1), bool), np.ones((6, 1), bool)
        text[4] = False
        group = np.array([0, 1, 2, 2, 4, -1]) + start
        yield Batch({"image": Stream(values, image), "text": Stream(values, text)}, group, np.arange(6) != 5)


def oracle(batch):
    """Knows pairs by their values, but takes image 1 for no pair of any text."""
    image, text = (np.asarray(batch.streams[name].values)[:, 0] for name in ("image", "text"))
    margin = np.where((image == text) & (image != 1), 1.0, -1.0)
    return {"matching": np.stack([0 * margin, margin], axis=1)}


def test_accuracy_is_the_mean_over_pairs_and_mismatches():
    seen = []

    def embed(batch):
        seen.append(batch)
        return oracle(batch)

    found = MatchingEvaluator()(embed, batches())
    assert found["pairs"] == pytest.approx(7 / 8)  # rows 0 to 3 of both
    assert found["mismatches"] == 1 and found["accuracy"] == pytest.approx(15 / 16)
    assert 0.9 < found["auc"] < 1
    assert "hard_mismatches" not in found  # there are no embeddings
    mismatched = seen[1]
    np.testing.assert_array_equal(mismatched.streams["text"].values[:, 0], [5, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(mismatched.streams["image"].values, seen[0].streams["image"].values)


def test_relatives_padding_and_missing_halves_are_no_mismatches():
    def always(batch):
        return {"matching": np.tile([[0.0, 1.0]], (6, 1))}

    found = MatchingEvaluator()(always, batches())
    assert found["pairs"] == 1 and found["mismatches"] == 0 and found["auc"] == 0.5


def test_the_hardest_mismatch_is_with_the_nearest_of_another_group():
    """Of a value v the nearest other is v + 1, which the head cannot tell from a pair; of the last one it is v - 1."""

    def embed(batch):
        image, text = (np.asarray(batch.streams[name].values)[:, 0] % 10 for name in ("image", "text"))
        angles = {"image": 0.1 * image + 0.01, "text": 0.1 * text}
        vectors = {name: np.stack([np.cos(angle), np.sin(angle)], axis=1) for name, angle in angles.items()}
        margin = np.where((text == image) | (text == image + 1), 1.0, -1.0)
        return vectors | {"matching": np.stack([0 * margin, margin], axis=1)}

    found = MatchingEvaluator(shift=2)(embed, batches())
    # Images 0 and 1 take texts 1 and 2; 2 and 3 are one group, whose nearest is 1, as 4 has no text and 5 is padding;
    # image 4 takes text 3.
    assert found["pairs"] == 1 and found["hard_mismatches"] == pytest.approx(3 / 5)


def test_nothing_to_judge_and_no_head_are_sentences():
    (first, _) = batches()
    with pytest.raises(UserError, match="the data holds no pair, or no two records"):
        MatchingEvaluator()(oracle, [first.replace(group=np.zeros(6, int))])
    with pytest.raises(UserError, match="matching: the head: 'itm' is unknown"):
        MatchingEvaluator(head="itm")(oracle, batches())


def test_two_hosts_find_what_one_finds():
    """The group of a row is on another host than the row it is matched with; 12 rows, the last two padding."""
    source = """
        import json
        import jax, jax.numpy as jnp, numpy as np
        from mmjax.core.types import Batch, Stream
        from mmjax.evaluation.matching import MatchingEvaluator
        from mmjax.core.mesh import batch_sharding, make_mesh
        from mmjax.training.sharding import global_batch, local_rows

        mesh = make_mesh()
        values = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
        there = np.ones((12, 1), bool)
        streams = {"image": Stream(values, there), "text": Stream(values[::-1] + 0.5 * values, there)}
        batch = Batch(streams, np.arange(12, dtype=np.int32) // 2, np.arange(12) < 10)

        def embed(streams):
            image, text = (streams[name].values for name in ("image", "text"))
            score = jnp.sum(image * text, axis=1)
            return {"image": image, "text": text, "matching": jnp.stack([0 * score, score], axis=1)}

        with jax.set_mesh(mesh):
            rows = jax.tree.map(lambda leaf: leaf[local_rows(12, mesh)], batch)
            call = jax.jit(embed, out_shardings=batch_sharding(mesh))
            given = [global_batch(rows, 12, mesh)]
            found = MatchingEvaluator()(lambda batch: call(batch.streams), given)
            head_alone = MatchingEvaluator()(lambda batch: {"matching": call(batch.streams)["matching"]}, given)
        print("found", json.dumps([found, head_alone]))
    """
    alone = json.loads(run_on_devices(source, 2).rpartition("found ")[2])
    assert set(alone[0]) == {"accuracy", "auc", "pairs", "mismatches", "hard_mismatches"}
    assert set(alone[0]) - set(alone[1]) == {"hard_mismatches"}
    for output in run_on_hosts(source, num_devices=1):
        for found, expected in zip(json.loads(output.rpartition("found ")[2]), alone, strict=True):
            assert found == pytest.approx(expected)
