"""Distillation: what counts, what is learned, and that a student with fewer modalities gains from its teacher's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.decoders.head import Head
from mmjax.decoders.probes import Probes
from mmjax.fusion.late import Late
from mmjax.losses.distillation import feature_distillation, logit_distillation, relational_distillation
from mmjax.model import MultimodalModel
from mmjax.tasks.distillation import Distillation
from mmjax.tasks.multi import MultiTask
from mmjax.tasks.supervised import Classification
from mmjax.training.grad_cache import value_and_grad
from tests.quick import jit
from tests.toy import Linear, Sum, toy_batch, toy_model
from tests.training.tiny import relative_difference

BATCH = toy_batch(48)
HEADS = {"label": Head(3), "hint": Head(4, "values"), "probe": Probes(3)}
ALL = Distillation(projection="hint", logits=1.0, features=0.5, relations=2.0, temperature=3.0)


def made(model, batch=BATCH):
    params = jit(model.init)(jax.random.key(0), batch.streams)["params"]
    return params, lambda params, streams, rng: model.apply({"params": params}, streams, rng)


def student(**settings) -> MultimodalModel:
    """Sees 'b' alone; its teacher sees 'a' and 'b'."""
    return MultimodalModel({"b": Linear()}, Sum(), decoders=HEADS, teachers={"teacher": toy_model()}, **settings)


def test_the_weighted_sum_by_hand_and_who_counts():
    streams = dict(BATCH.streams)
    streams["b"] = streams["b"].replace(mask=streams["b"].mask & (np.arange(48) != 5)[:, None])
    batch = BATCH.replace(streams=streams)
    params, apply = made(student(), batch)
    loss = jit(lambda params: ALL.loss(*ALL.embed(apply, params, batch, None), batch))(params)
    outputs = jit(apply)(params, streams, None)
    teacher = outputs.teachings["teacher"]
    mask = batch.mask & (np.arange(48) != 5)
    expected = logit_distillation(outputs.predictions["label"], teacher.predictions["label"], 3.0)
    expected += 0.5 * feature_distillation(outputs.predictions["hint"], teacher.fused.pooled)
    expected += 2.0 * relational_distillation(outputs.fused.pooled, teacher.fused.pooled, mask=mask)
    np.testing.assert_array_equal(loss.mask, mask)
    np.testing.assert_allclose(loss.values, np.where(mask, expected, 0.0), rtol=1e-5)
    assert set(loss.metrics) == {"logits", "features", "relations"}


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    model = toy_model(teachers={"teacher": toy_model()})
    params, apply = made(model)
    params = params | {"teachers_teacher": {k: v for k, v in params.items() if k != "teachers_teacher"}}
    task = Distillation(features=1.0, relations=1.0)
    loss = jit(lambda params: task.loss(*task.embed(apply, params, BATCH, None), BATCH).mean())(params)
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_micro_batches_give_the_same_gradient():
    task = MultiTask({"label": Classification(), "teacher": ALL}, weights={"teacher": 0.5})
    params, apply = made(student(), BATCH)
    rng = jax.random.split(jax.random.key(0), 48)
    (whole, gradient), (parts, in_parts) = (
        jit(lambda params, count=count: _loss_and_gradient(task, apply, params, rng, count))(params) for count in (1, 4)
    )
    assert float(whole) == pytest.approx(float(parts), rel=1e-6)
    assert relative_difference(gradient, in_parts) < 1e-5


def _loss_and_gradient(task, apply, params, rng, micro_batches):
    (loss, _), gradient = value_and_grad(task, apply, params, BATCH, rng, micro_batches)
    return loss, gradient


def test_votes_have_a_joint_vector_too():
    model = MultimodalModel({"b": Linear()}, Late(4), decoders={"label": Head(3)})
    batch = BATCH.replace(streams={"b": BATCH.streams["b"]})
    params, apply = made(model, batch)
    outputs = jit(apply)(params, batch.streams, None)
    np.testing.assert_allclose(outputs.joint("test"), outputs.votes.vectors["b"], rtol=1e-6)


def test_a_student_without_labels_learns_the_task_from_its_teacher():
    """The teacher knows the classes; the student sees other, noisier vectors of the same examples, and no label."""
    big = toy_batch(512)
    noisy = big.streams["b"].values + np.random.default_rng(1).normal(size=(512, 5)).astype(np.float32)
    batch = big.replace(streams=big.streams | {"b": Stream(noisy, big.streams["b"].mask)})
    params, apply = made(student(), batch)
    identity = {"kernel": 4 * jnp.eye(5, 4), "bias": jnp.zeros(4)}
    knows = {"encoders_a": {"linear": identity}, "encoders_b": {"linear": {**identity, "kernel": jnp.zeros((5, 4))}}}
    label = {"joint": {"kernel": jnp.eye(4, 3), "bias": jnp.zeros(3)}}
    params["teachers_teacher"] |= knows | {"decoders_label": label}
    task, optimizer, forward = Distillation(), optax.adam(0.05), jit(apply)

    def accuracy(params):
        found = forward(params, batch.streams, None).predictions["label"].argmax(axis=-1)
        return float(np.mean(np.asarray(found) == batch.targets["label"]))

    @jit
    def step(params, state):
        gradient = jax.grad(lambda p: task.loss(*task.embed(apply, p, batch, None), batch).mean())(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    before, state = accuracy(params), optimizer.init(params)
    for _ in range(60):
        params, state = step(params, state)
    assert before < 0.6 and accuracy(params) > 0.75


def test_a_head_of_one_number_has_no_classes_to_tell_of():
    with pytest.raises(UserError, match="a head of one number has no classes"):
        logit_distillation(jnp.ones((2, 1)), jnp.zeros((2, 1)))


def test_names_and_weights_that_do_not_fit_are_sentences():
    params, apply = made(student(), BATCH)
    for task, words in (
        (Distillation(teacher="teach"), "Distillation.teacher.*Did you mean 'teacher'"),
        (Distillation(head="lable"), "Distillation.head.*Did you mean 'label'"),
        (Distillation(projection="hnt", features=1.0), "Distillation.projection.*Did you mean 'hint'"),
    ):
        with pytest.raises(UserError, match=words):
            jax.eval_shape(lambda params, task=task: task.embed(apply, params, BATCH, None)[0], params)
    with pytest.raises(UserError, match="nothing would be learned"):
        Distillation(logits=0.0)
