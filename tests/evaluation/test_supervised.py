"""Predictions with every subset of the modalities, and with parts of one lost."""

import json

import jax
import numpy as np
import pytest
from sklearn.metrics import f1_score

from mmjax.core.errors import UserError
from mmjax.core.subsets import keep_only, subsets
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.robustness import RobustnessEvaluator
from mmjax.evaluation.supervised import ClassificationEvaluator, RegressionEvaluator, regression_metrics
from tests.devices import run_on_hosts
from tests.toy import toy_batch, toy_model

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def model():
    """Returns (embed, batches) of the toy model."""
    module, batches = toy_model(names=NAMES), [toy_batch(names=NAMES, seed=seed) for seed in range(3)]
    params = module.init(jax.random.key(0), batches[0].streams)["params"]
    call = jax.jit(lambda batch: module.apply({"params": params}, batch.streams).predictions)
    return call, batches


def test_all_subsets_small_ones_first():
    assert [len(part) for part in subsets(NAMES)] == [1, 1, 1, 2, 2, 2, 3]
    assert len(set(subsets("abcd"))) == 15


def test_keep_only_hides_the_others_and_keeps_shapes():
    batch = toy_batch(names=NAMES)
    part = keep_only(batch, ("b",))
    assert part.streams["b"].present.all() and not part.streams["a"].present.any()
    assert jax.tree.map(np.shape, part) == jax.tree.map(np.shape, batch)


def test_each_subset_is_what_the_model_says_without_the_others(model):
    embed, batches = model
    metrics = ClassificationEvaluator()(embed, batches)
    assert len({key.split("/")[0] for key in metrics}) == 7
    for part in [("a",), ("b", "c"), NAMES]:
        predicted, labels = [], []
        for batch in batches:
            without = {n: s if n in part else Stream(s.values, np.zeros_like(s.mask)) for n, s in batch.streams.items()}
            there = np.any([without[n].mask.any(axis=1) for n in part], axis=0) & batch.mask
            predicted.append(np.asarray(embed(batch.replace(streams=without))["label"])[there].argmax(axis=1))
            labels.append(batch.targets["label"][there])
        predicted, labels = np.concatenate(predicted), np.concatenate(labels)
        name = "all" if part == NAMES else "+".join(part)
        assert metrics[f"{name}/accuracy"] == pytest.approx((predicted == labels).mean())
        assert metrics[f"{name}/weighted_f1"] == pytest.approx(f1_score(labels, predicted, average="weighted"))
    assert set(ClassificationEvaluator(by_subset=False)(embed, batches)) == {
        f"all/{k}" for k in ("accuracy", "weighted_f1", "macro_f1")
    }


def test_batches_are_read_once(model):
    embed, batches = model
    assert ClassificationEvaluator()(embed, iter(batches)) == ClassificationEvaluator()(embed, batches)


def test_regression_leaves_out_what_has_no_score(model):
    embed, batches = model
    score = batches[0].targets["score"].copy()
    score[3] = np.nan
    changed = [batches[0].replace(targets={"score": score})]
    metrics = RegressionEvaluator("score", "score")(embed, changed)
    keep = batches[0].mask & np.isfinite(score)
    predicted = np.asarray(embed(changed[0])["score"])[keep, 0]
    assert metrics["all/mean_absolute_error"] == pytest.approx(np.abs(predicted - score[keep]).mean(), rel=1e-5)
    assert metrics["all/correlation"] == pytest.approx(np.corrcoef(predicted, score[keep])[0, 1], rel=1e-5)
    assert regression_metrics(np.ones(3), np.arange(3.0))["correlation"] == 0


def test_wrong_names_are_sentences(model):
    embed, batches = model
    with pytest.raises(UserError, match=r"the head: 'lable' is unknown\. Did you mean 'label'"):
        ClassificationEvaluator("lable")(embed, batches)
    with pytest.raises(UserError, match="no target 'labels'"):
        ClassificationEvaluator(target="labels")(embed, batches)
    with pytest.raises(UserError, match="gave no batches"):
        ClassificationEvaluator()(embed, [])


def cloud(points: int = 40, size: int = 6) -> Batch:
    values = np.random.default_rng(0).normal(size=(size, points, 3)).astype(np.float32)
    mask = np.arange(points) < np.array([40, 40, 20, 8, 1, 0])[:, None]
    return Batch({"points": Stream(values, mask)}, np.arange(size, dtype=np.int32), np.ones(size, bool))


def test_positions_are_lost_in_their_share_and_one_stays():
    evaluator, batch = RobustnessEvaluator("points"), cloud()
    kept = {
        share: np.asarray(evaluator.damaged(batch, share).streams["points"].mask) for share in (0.0, 0.25, 0.9, 1.0)
    }
    np.testing.assert_array_equal(kept[0.0], batch.streams["points"].mask)
    np.testing.assert_array_equal(kept[0.25].sum(axis=1), [30, 30, 15, 6, 1, 0])
    np.testing.assert_array_equal(kept[0.9].sum(axis=1), [4, 4, 2, 1, 1, 0])
    np.testing.assert_array_equal(kept[1.0].sum(axis=1), [1, 1, 1, 1, 1, 0])
    assert not (kept[0.9] & ~kept[0.25]).any()  # more is lost, never other things
    assert (kept[0.25][0] != kept[0.25][1]).any()
    shuffled = jax.tree.map(lambda x: x[::-1], batch)
    np.testing.assert_array_equal(evaluator.damaged(shuffled, 0.25).streams["points"].mask[::-1], kept[0.25])


def test_channels_and_modalities_are_lost():
    batch = cloud()
    found = RobustnessEvaluator("points", "channels").damaged(batch, 0.67).streams["points"].values
    lost = np.isnan(np.asarray(found))
    assert (lost.all(axis=1).sum(axis=1) == 2).all() and (lost.any(axis=1) == lost.all(axis=1)).all()
    gone = RobustnessEvaluator("points", "modality").damaged(batch, 1.0).streams["points"].mask
    assert not np.asarray(gone).any()


def test_the_curve_has_a_row_for_each_share(model):
    embed, batches = model
    metrics = RobustnessEvaluator("a", "modality", (0.0, 1.0))(embed, batches)
    whole, without = (ClassificationEvaluator()(embed, batches)[f"{part}/accuracy"] for part in ("all", "b+c"))
    assert metrics["lost 0 %/accuracy"] == whole and metrics["lost 100 %/accuracy"] == without
    with pytest.raises(UserError, match="numbers from 0 to 1"):
        RobustnessEvaluator("a", shares=(2.0,))
    with pytest.raises(UserError, match="Did you mean 'channels'"):
        RobustnessEvaluator("a", "channel")
    with pytest.raises(UserError, match=r"the head.*Did you mean 'label'"):
        RobustnessEvaluator("a", head="labels")(embed, batches)
    with pytest.raises(UserError, match="channels are lost as NaN, which 'a' of int32 cannot hold"):
        whole = batches[0].streams["a"].replace(values=np.zeros((12, 1, 5), np.int32))
        RobustnessEvaluator("a", "channels").damaged(batches[0].replace(streams=batches[0].streams | {"a": whole}), 0.5)
    with pytest.raises(UserError, match=r"'label' predicts \[33, 3\]; expected \[examples, 1\]"):
        RegressionEvaluator("label", "score", by_subset=False)(embed, batches)
    with pytest.raises(UserError, match="classes are whole numbers or names, and the target is float32"):
        ClassificationEvaluator(target="score")(embed, batches)
    unlabelled = [batch.replace(targets={"label": np.full(len(batch.mask), -1)}) for batch in batches]
    with pytest.raises(UserError, match="no example has a target 'label'"):
        RobustnessEvaluator("a")(embed, unlabelled)


def test_two_hosts_find_what_one_finds(model):
    embed, batches = model
    expected = ClassificationEvaluator()(embed, batches[:1])
    found = run_on_hosts(
        """
        import jax, json, numpy as np
        from mmjax.core.mesh import make_mesh
        from mmjax.evaluation.supervised import ClassificationEvaluator
        from mmjax.training.sharding import global_batch, local_rows
        from tests.toy import toy_batch, toy_model

        names, mesh = ("a", "b", "c"), make_mesh()
        batch = toy_batch(names=names)
        module = toy_model(names=names)
        with jax.set_mesh(mesh):
            params = jax.jit(lambda: module.init(jax.random.key(0), batch.streams)["params"])()
            call = jax.jit(lambda batch: module.apply({"params": params}, batch.streams).predictions["label"])
            rows = jax.tree.map(lambda leaf: leaf[local_rows(12, mesh)], batch)
            parts = [global_batch(rows, 12, mesh)]
            metrics = ClassificationEvaluator()(lambda batch: {"label": call(batch)}, parts)
        print("found", json.dumps(metrics))
        """,
        num_devices=2,
    )
    for output in found:
        metrics = json.loads(
            next(line for line in output.splitlines() if line.startswith("found")).removeprefix("found")
        )
        assert metrics == pytest.approx(expected)
