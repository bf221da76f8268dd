"""Classification, regression and several tasks at once: values by hand, what counts, and the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.trees import flatten
from mmjax.core.types import Outputs, Tokens
from mmjax.tasks.contrastive import Contrastive
from mmjax.tasks.multi import MultiTask, uncertainty_scalars
from mmjax.tasks.supervised import Classification, Regression
from mmjax.training.grad_cache import value_and_grad
from tests.toy import toy_batch, toy_model
from tests.training.tiny import relative_difference

BATCH = toy_batch()


def made(model, batch=BATCH):
    params = model.init(jax.random.key(0), batch.streams)["params"]
    return params, lambda params, streams, rng: model.apply({"params": params}, streams, rng)


def loss_of(task, model=None, batch=BATCH):
    params, apply = made(model or toy_model())
    return task.loss(*task.embed(apply, params, batch, None), batch), apply(params, batch.streams, None)


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def test_classification_by_hand():
    labels = BATCH.targets["label"].copy()
    labels[3] = -1
    batch = BATCH.replace(targets=BATCH.targets | {"label": labels})
    loss, outputs = loss_of(Classification(label_smoothing=0.1, class_weights=(1.0, 2.0, 3.0)), batch=batch)
    log = log_softmax(outputs.predictions["label"])
    wanted = np.eye(3)[labels] * 0.9 + 0.1 / 3
    expected = -(wanted * log).sum(axis=1) * np.array([1.0, 2.0, 3.0])[labels]
    counts = np.array([i not in (1, 3) for i in range(12)])  # padding, and one without a label
    np.testing.assert_array_equal(loss.mask, counts)
    np.testing.assert_allclose(np.asarray(loss.values)[counts], expected[counts], rtol=0, atol=1e-5)
    right = (log.argmax(axis=1) == labels)[counts].mean()
    assert float(loss.metrics["accuracy"]) == pytest.approx(right)


def test_weights_in_a_list_go_through_jit():
    params, apply = made(toy_model())
    task = Classification(class_weights=[1.0, 2.0, 3.0])
    call = jax.jit(lambda p: task.loss(*task.embed(apply, p, BATCH, None), BATCH))
    assert float(call(params).mean()) == pytest.approx(float(loss_of(task)[0].mean()), rel=1e-5)


def test_regression_by_hand_and_a_target_that_is_missing():
    scores = BATCH.targets["score"].copy()
    scores[4] = np.nan
    batch = BATCH.replace(targets=BATCH.targets | {"score": scores})
    loss, outputs = loss_of(Regression("score", "score", delta=0.5, scale=2.0), batch=batch)
    error = np.abs(np.asarray(outputs.predictions["score"])[:, 0] - scores) / 2
    expected = np.where(error <= 0.5, 0.5 * error**2, 0.5 * (error - 0.25))
    counts = np.array([i not in (1, 4) for i in range(12)])
    np.testing.assert_array_equal(loss.mask, counts)
    np.testing.assert_allclose(np.asarray(loss.values)[counts], expected[counts], rtol=0, atol=1e-6)
    assert np.isfinite(float(loss.mean()))


def test_an_example_with_nothing_does_not_count():
    streams = {
        name: stream.replace(mask=stream.mask & (np.arange(12) != 5)[:, None]) for name, stream in BATCH.streams.items()
    }
    loss, _ = loss_of(Classification(probes="probe"), batch=BATCH.replace(streams=streams))
    assert not loss.mask[5] and loss.mask.sum() == 10
    assert not loss.evidence.present["a"][0] and loss.evidence.present["b"][0]


def test_probes_add_their_own_loss_where_the_modality_is():
    plain, outputs = loss_of(Classification())
    probed, _ = loss_of(Classification(probes="probe"))
    labels = BATCH.targets["label"]
    extra = {n: -log_softmax(a)[np.arange(12), labels] for n, a in outputs.predictions["probe"].items()}
    extra["a"][0] = 0  # row 0 lacks a
    np.testing.assert_array_equal(probed.values, plain.values)
    np.testing.assert_allclose(probed.extra[2:], (extra["a"] + extra["b"])[2:], rtol=0, atol=1e-5)
    assert "probe/a/accuracy" in probed.metrics


def test_several_tasks_are_the_weighted_sum_of_their_means():
    tasks = {"label": Classification(), "score": Regression("score", "score")}
    labels = BATCH.targets["label"].copy()
    labels[2:8] = -1
    batch = BATCH.replace(targets=BATCH.targets | {"label": labels})
    parts = {name: float(loss_of(task, batch=batch)[0].mean()) for name, task in tasks.items()}
    loss, _ = loss_of(MultiTask(tasks, {"score": 3.0}), batch=batch)
    assert float(loss.mean()) == pytest.approx(parts["label"] + 3 * parts["score"], rel=1e-5)
    assert float(loss.metrics["label/loss"]) == pytest.approx(parts["label"], rel=1e-5)


def test_uncertainty_weights_learn_and_have_kendalls_value():
    tasks = {"label": Classification(), "score": Regression("score", "score")}
    scalars = {name: value + 0.5 for name, value in uncertainty_scalars(tasks).items()}
    parts = [float(loss_of(task)[0].mean()) for task in tasks.values()]
    loss, _ = loss_of(MultiTask(tasks, uncertainty=True), toy_model(scalars=scalars))
    assert float(loss.mean()) == pytest.approx(sum(np.exp(-0.5) * part + 0.25 for part in parts), rel=1e-5)
    params, apply = made(toy_model(scalars=scalars))
    task = MultiTask(tasks, uncertainty=True)
    grads = jax.grad(lambda p: task.loss(*task.embed(apply, p, BATCH, None), BATCH).mean())(params)
    for name, part in zip(tasks, parts, strict=True):
        assert float(grads[f"log_variance/{name}"]) == pytest.approx(0.5 - np.exp(-0.5) * part, rel=1e-4)


def test_a_task_of_weight_0_learns_no_variance_either():
    tasks = {"label": Classification(), "score": Regression("score", "score")}
    params, apply = made(toy_model(scalars=uncertainty_scalars(tasks)))
    task = MultiTask(tasks, {"score": 0.0}, uncertainty=True)
    grads = jax.grad(lambda p: task.loss(*task.embed(apply, p, BATCH, None), BATCH).mean())(params)
    assert float(grads["log_variance/score"]) == 0 and float(grads["log_variance/label"]) != 0


def test_probes_change_nothing_that_the_model_learns():
    """Gradients of all but the probes, weights by uncertainty included, are the same to 1e-6."""
    scalars = uncertainty_scalars(("label", "score"))
    params, apply = made(toy_model(scalars=scalars))

    def grads(probes):
        task = MultiTask(
            {"label": Classification(probes=probes), "score": Regression("score", "score")}, uncertainty=True
        )
        return jax.grad(lambda p: task.loss(*task.embed(apply, p, BATCH, None), BATCH).mean())(params)

    with_probes, without = flatten(grads("probe")), flatten(grads(None))
    for path, leaf in without.items():
        if not path.startswith("decoders_probe"):
            np.testing.assert_allclose(with_probes[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)
    assert np.abs(with_probes["decoders_probe/a/kernel"]).max() > 0.01


def test_a_task_without_examples_learns_no_weight():
    scalars = uncertainty_scalars(("label", "score"))
    params, apply = made(toy_model(scalars=scalars))
    batch = BATCH.replace(targets=BATCH.targets | {"label": np.full(12, -1, np.int32)})
    task = MultiTask({"label": Classification(), "score": Regression("score", "score")}, uncertainty=True)
    grads = jax.grad(lambda p: task.loss(*task.embed(apply, p, batch, None), batch).mean())(params)
    assert float(grads["log_variance/label"]) == 0 and float(grads["log_variance/score"]) != 0


@pytest.mark.parametrize("tasks", [("label",), ("label", "score"), ("label", "score", "align")])
def test_penalties_count_once_whatever_the_tasks(tasks):
    made_tasks = {
        "label": Classification(),
        "score": Regression("score", "score"),
        "align": Contrastive("a", "b", form="dense"),
    }
    outputs = Outputs(
        tokens={name: Tokens(jnp.ones((12, 1, 4)), BATCH.streams[name].mask) for name in "ab"},
        embeddings={name: jnp.eye(12, 4) for name in "ab"},
        scalars={"logit_scale": jnp.float32(10.0), "log_variance/label": jnp.float32(0.0)},
        predictions={"label": jnp.zeros((12, 3)), "score": jnp.zeros((12, 1))},
    )
    penalty = jnp.arange(12.0)
    task = MultiTask({name: made_tasks[name] for name in tasks}, {"label": 2.0})
    for one in (task, made_tasks[tasks[-1]]):
        plain, more = (
            one.loss(*one.embed(lambda *_, p=p: outputs.replace(penalties=p), {}, BATCH, None), BATCH)
            for p in ({}, {"balance": penalty})
        )
        expected = np.mean(np.asarray(penalty)[np.asarray(plain.mask)])
        assert float(more.mean() - plain.mean()) == pytest.approx(expected, rel=1e-5)
        assert float(more.metrics["penalty/balance"]) == pytest.approx(expected, rel=1e-5)


def test_micro_batches_give_the_same_gradient():
    task = MultiTask({"label": Classification(probes="probe"), "score": Regression("score", "score")})
    params, apply = made(toy_model())
    rng = jax.random.split(jax.random.key(0), 12)
    batch = jax.tree.map(jnp.asarray, BATCH)
    whole = value_and_grad(task, apply, params, batch, rng)
    parts = value_and_grad(task, apply, params, batch, rng, micro_batches=3)
    assert float(whole[0][0]) == pytest.approx(float(parts[0][0]), rel=1e-6)
    assert relative_difference(whole[1], parts[1]) < 1e-5


def test_what_does_not_fit_is_a_sentence():
    with pytest.raises(UserError, match=r"Classification\.head: 'lable' is unknown\. Did you mean 'label'"):
        loss_of(Classification(head="lable"))
    with pytest.raises(UserError, match=r"Classification\.target: 'labels'"):
        loss_of(Classification(target="labels"))
    for shape in ((12, 1), (12, 3)):
        batch = BATCH.replace(targets=BATCH.targets | {"score": np.zeros(shape, np.float32)})
        with pytest.raises(UserError, match=r"'score' is float32 \[12, .\]; expected one value an example"):
            loss_of(Regression("score", "score"), batch=batch)
    with pytest.raises(UserError, match="expected one class an example"):
        loss_of(Classification(target="score"))
    with pytest.raises(UserError, match="2 weights, but 'label' predicts 3"):
        loss_of(Classification(class_weights=(1.0, 2.0)))
    with pytest.raises(UserError, match=r"expected \[batch, 1\]"):
        loss_of(Regression("label", "score"))
    with pytest.raises(UserError, match="at least one task"):
        MultiTask({})
    with pytest.raises(UserError, match="weights names scores"):
        MultiTask({"score": Regression()}, {"scores": 1.0})
    with pytest.raises(UserError, match="needs the learned scalar 'log_variance/label'"):
        loss_of(MultiTask({"label": Classification()}, uncertainty=True))
