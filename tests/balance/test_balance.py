"""Monitor, modulators and GradNorm: their identities in balance, their formulas by hand, and inside the train step."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.balance.agm import Agm, shares
from mmjax.balance.gradnorm import GradNorm
from mmjax.balance.modulator import Modulator, Step, scale_encoders
from mmjax.balance.monitor import Monitor
from mmjax.balance.ogm_ge import OgmGe, probabilities
from mmjax.balance.pmr import Pmr
from mmjax.core.errors import UserError
from mmjax.core.subsets import keep_only
from mmjax.core.trees import flatten
from mmjax.tasks.multi import MultiTask
from mmjax.tasks.supervised import Classification, Regression
from mmjax.training import state as states
from mmjax.training.step import train_step
from tests.toy import toy_batch, toy_model

TASK = Classification(probes="probe")


@functools.lru_cache
def setup(names=("a", "b")):
    model = toy_model(names=names)
    batch = jax.tree.map(jnp.asarray, toy_batch(names=names))
    params = model.init(jax.random.key(0), batch.streams)["params"]
    return model, batch, params


def run(task, params, batch, model=None):
    model = model or setup()[0]
    apply = lambda params, streams, rng: model.apply({"params": params}, streams, rng)  # noqa: E731
    return task.loss(*task.embed(apply, params, batch, None), batch)


def seen(task=TASK, number=0, names=("a", "b")) -> Step:
    model, batch, params = setup(names)
    call = functools.partial(run, task, model=model)
    grads = jax.grad(lambda p: call(p, batch).mean())(params)
    return Step(call(params, batch), grads, params, batch, jnp.int32(number), jax.random.key(1), call)


def floats(**values):
    """Returns name -> [] float32, and name -> True."""
    return {name: jnp.float32(value) for name, value in values.items()}, dict.fromkeys(values, jnp.bool_(True))


def total(loss):
    return np.asarray(loss.values + loss.extra)


def without(batch, name):
    """Returns the batch with a modality missing from every example."""
    return keep_only(batch, [other for other in batch.streams if other != name])


def step_of(task, steps=3, optimizer=None, micro_batches=1, **modulators):
    """Takes some steps of SGD; returns (params, metrics of the last, state)."""
    model, batch, params = setup()
    optimizer = optimizer or optax.sgd(0.1)
    apply = lambda params, streams, rng: model.apply({"params": params}, streams, rng)  # noqa: E731
    loss = jax.eval_shape(functools.partial(run, task), params, batch)
    state = states.create(params, optimizer, None, lambda: {n: m.init(params, loss) for n, m in modulators.items()})
    settings = {"apply": apply, "task": task, "optimizer": optimizer, "modulators": modulators, "seed": 0}
    settings |= {
        "micro_batches": micro_batches,
        "learning_rate": lambda step: 0.1,
        "trainable": jax.tree.map(lambda _: True, params),
    }
    step = jax.jit(functools.partial(train_step, **settings))
    for _ in range(steps):
        state, metrics = step(state, batch)
    return state, metrics


def equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_ogm_ge_is_exactly_one_in_balance_and_slows_who_is_ahead():
    modulator = OgmGe(alpha=0.5)
    for balanced in ({"a": 0.4, "b": 0.4}, {"a": 0.0, "b": 0.0}, {"a": 0.3, "b": 0.3, "c": 0.3}):
        factors = modulator.factors(*floats(**balanced))
        assert [float(factor) for factor in factors.values()] == [1.0] * len(balanced)
    factors = modulator.factors(*floats(a=0.6, b=0.3))
    assert float(factors["b"]) == 1.0
    assert float(factors["a"]) == pytest.approx(1 - math.tanh(0.5 * 2.0), abs=1e-6)


def test_ogm_ge_scales_the_encoder_that_is_ahead_and_nothing_else():
    step = seen()
    grads = jax.tree.map(lambda p: jnp.ones_like(p) + p, step.params)
    modulator = OgmGe(alpha=0.5, noise=False)
    found, _, metrics = modulator.modulate(grads, (), step)
    ahead = max(probabilities(step.evidence).items(), key=lambda item: float(item[1]))[0]
    factor = metrics[f"ogm_ge/factor/{ahead}"]
    assert float(factor) < 1
    for path, leaf in flatten(found).items():
        expected = factor if path.startswith(f"encoders_{ahead}/") else 1.0
        np.testing.assert_array_equal(leaf, flatten(grads)[path] * expected)
    noisy, _, _ = OgmGe(alpha=0.5).modulate(grads, (), step)
    changed = {
        path.split("/")[0] for path, leaf in flatten(noisy).items() if not np.array_equal(leaf, flatten(found)[path])
    }
    assert changed == {f"encoders_{ahead}"}
    path = f"encoders_{ahead}/linear/kernel"
    noise = np.asarray(flatten(noisy)[path] - flatten(found)[path])
    assert np.std(noise) == pytest.approx(np.std(flatten(grads)[path]), rel=0.5)  # as it was, not as it is slowed
    assert float(factor) < 0.6
    later, _, metrics = OgmGe(alpha=0.5, until=5).modulate(grads, (), seen(number=5))
    assert equal(later, grads) and float(metrics[f"ogm_ge/factor/{ahead}"]) == 1.0


def test_agm_is_exactly_one_where_nothing_changed_and_follows_the_formula():
    now, there = floats(a=0.7, b=1.3)
    assert [float(f) for f in Agm().factors(now, now, there).values()] == [1.0, 1.0]
    factors = Agm(alpha=0.5).factors(now, floats(a=1.0, b=1.0)[0], there)
    assert float(factors["a"]) == pytest.approx(math.exp(-0.5 * (math.exp(0.6) - 1)), rel=1e-6)
    assert float(factors["b"]) == pytest.approx(math.exp(-0.5 * (math.exp(-0.6) - 1)), rel=1e-6)


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
def test_shares_sum_to_the_answer_and_are_shapley_values(names):
    step = seen(names=names)
    whole = step.run(step.params, step.batch).evidence
    found = shares(step, whole)
    np.testing.assert_allclose(sum(found.values()), whole.prediction, rtol=0, atol=1e-6)
    # The toy model is a sum and a linear head: with the bias shared out evenly, a share is the modality's own term.
    kernel, bias = step.params["decoders_label"]["joint"]["kernel"], step.params["decoders_label"]["joint"]["bias"]
    for name in names:
        own = whole.features[name] @ kernel + bias / len(names)
        np.testing.assert_allclose(found[name], own, rtol=0, atol=1e-5)


def test_agm_keeps_running_averages():
    modulator, step = Agm(), seen()
    state = modulator.init(step.params, step.loss)
    grads = jax.tree.map(jnp.ones_like, step.params)
    first, state, metrics = modulator.modulate(grads, state, step)
    assert equal(first, grads) and {float(value) for value in metrics.values()} == {1.0}
    scores = dict(state["mean"])
    second, state, _ = modulator.modulate(grads, state, step)
    assert equal(second, grads) and {float(count) for count in state["count"].values()} == {2.0}
    assert {k: pytest.approx(float(v), rel=1e-6) for k, v in state["mean"].items()} == {
        k: float(v) for k, v in scores.items()
    }


def test_pmr_adds_exactly_nothing_in_balance():
    pull, hold = Pmr().strengths(*floats(a=0.4, b=0.4))
    assert {float(v) for v in (*pull.values(), *hold.values())} == {0.0}
    pull, hold = Pmr().strengths(*floats(a=0.6, b=0.4))
    assert [float(pull[n]) for n in "ab"] == pytest.approx([0, 0.5]) and [
        float(hold[n]) for n in "ab"
    ] == pytest.approx([0.5, 0])
    step = seen()
    state = Pmr().init(step.params, step.loss)
    np.testing.assert_array_equal(total(Pmr(mu=1.0, entropy_until=9).reweigh(step.loss, state)), total(step.loss))


def test_pmr_pulls_towards_the_means_of_the_classes():
    step = seen()
    modulator = Pmr(decay=0.5)
    _, state, _ = modulator.modulate({}, modulator.init(step.params, step.loss), step)
    evidence = jax.tree.map(np.asarray, step.evidence)
    answers = {}
    for name in "ab":
        there = evidence.present[name]
        centres = np.stack([evidence.features[name][there & (evidence.labels == k)].mean(axis=0) for k in range(3)])
        distance = np.linalg.norm(evidence.features[name][:, None] - centres, axis=-1)
        answers[name] = -distance - np.log(np.exp(-distance).sum(axis=1, keepdims=True))
    score = {n: np.exp(a[np.arange(12), evidence.labels])[evidence.present[n]].mean() for n, a in answers.items()}
    behind = min(score, key=score.get)
    strength = np.clip(max(score.values()) / score[behind] - 1, 0, 1)
    expected = total(step.loss) - np.where(
        evidence.present[behind], strength * answers[behind][np.arange(12), evidence.labels], 0
    )
    np.testing.assert_allclose(total(modulator.reweigh(step.loss, state)), expected, rtol=0, atol=2e-6)


def test_gradnorm_stands_still_in_balance_and_moves_by_the_papers_rule():
    modulator = GradNorm(alpha=1.0, learning_rate=0.1)
    ones = jnp.ones(2)
    np.testing.assert_array_equal(modulator.updated(ones, ones * 0.5, ones * 2, ones * 2), ones)
    # Norms 3 and 1, rates 1 and 1: both are to be 2; the slopes are +3 and -1.
    found = modulator.updated(ones, jnp.asarray([3.0, 1.0]), ones, ones)
    np.testing.assert_allclose(found, np.array([0.7, 1.1]) * 2 / 1.8, rtol=1e-6)


def test_gradnorm_norms_are_those_of_each_task():
    task = MultiTask({"label": Classification(), "score": Regression(head="score", target="score")})
    step = seen(task)
    modulator = GradNorm(shared=r"encoders_a/.*")
    _, state, metrics = modulator.modulate({}, modulator.init(step.params, step.loss), step)
    for name in task.tasks:
        grad = jax.grad(lambda p, name=name: run(task, p, step.batch).parts[name].mean())(step.params)["encoders_a"]
        assert float(metrics[f"gradnorm/norm/{name}"]) == pytest.approx(float(optax.global_norm(grad)), rel=1e-5)
    assert float(sum(state["weights"].values())) == pytest.approx(2, rel=1e-6)
    with pytest.raises(UserError, match="matches no parameter"):
        GradNorm(shared="fusions/.*").init(step.params, step.loss)


def test_the_monitor_changes_nothing_and_sees_what_is_used():
    step = seen()
    params = jax.tree.map(lambda p: p, step.params)
    params["encoders_b"] = jax.tree.map(jnp.zeros_like, params["encoders_b"])  # b says nothing
    grads = jax.grad(lambda p: run(TASK, p, step.batch).mean())(params)
    step = Step(run(TASK, params, step.batch), grads, params, step.batch, step.number, step.key, step.run)
    updates = jax.tree.map(lambda g: -0.1 * g, grads)
    found, _, metrics = Monitor().modulate(updates, Monitor().init(params, step.loss), step)
    assert equal(found, updates)
    assert float(metrics["monitor/utilisation/b"]) < 1e-6 < 0.1 < float(metrics["monitor/utilisation/a"]) <= 1
    assert float(metrics["monitor/grad_norm/a"]) == pytest.approx(float(optax.global_norm(grads["encoders_a"])))
    assert float(metrics["monitor/probe/a"]) < 0


def test_a_modality_that_no_example_has_is_no_rival():
    step = seen()
    batch = without(step.batch, "b")
    step = Step(step.run(step.params, batch), step.grads, step.params, batch, step.number, step.key, step.run)
    updates = jax.tree.map(jnp.ones_like, step.params)
    for modulator, state in (
        (OgmGe(alpha=0.5), ()),
        (Agm(), {"mean": floats(a=0.2, b=5.0)[0], "count": floats(a=3, b=3)[0]}),
    ):
        found, state, metrics = modulator.modulate(updates, state, step)
        assert equal(found, updates) and {float(value) for value in metrics.values()} == {1.0}
    assert float(state["mean"]["b"]) == 5.0 and float(state["count"]["b"]) == 3.0 and float(state["count"]["a"]) == 4.0
    _, state, _ = Pmr().modulate({}, Pmr().init(step.params, step.loss), step)
    _, metrics = (loss := Pmr(mu=1.0, entropy_until=9).reweigh(step.loss, state)), loss.metrics
    assert float(metrics["pmr/pull/a"]) == float(metrics["pmr/hold/a"]) == 0.0


def test_agm_cannot_overflow():
    factors = Agm().factors(*[floats(a=a, b=b)[0] for a, b in ((1.0, 1.0), (0.0, 900.0))], floats(a=1, b=1)[1])
    assert np.isfinite([float(factor) for factor in factors.values()]).all()


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.adamw(0.1)])
def test_a_factor_counts_under_any_optimizer(optimizer):
    """Half the factor, half the way of the encoder: under Adam too, which would cancel a factor on the gradient."""

    class Half(Modulator):
        def modulate(self, updates, state, step):
            return scale_encoders(updates, {"a": 0.5}), state, {}

    def way(**modulators):
        state, _ = step_of(TASK, steps=1, optimizer=optimizer, **modulators)
        return flatten(jax.tree.map(jnp.subtract, state.params, setup()[2]))

    whole, half = way(), way(half=Half())
    np.testing.assert_allclose(
        half["encoders_a/linear/kernel"], 0.5 * whole["encoders_a/linear/kernel"], rtol=1e-4, atol=1e-7
    )
    np.testing.assert_array_equal(half["encoders_b/linear/kernel"], whole["encoders_b/linear/kernel"])


def test_in_the_step_the_monitor_leaves_training_bit_identical():
    plain, _ = step_of(TASK)
    watched, metrics = step_of(TASK, watch=Monitor(every=2))
    assert equal(plain.params, watched.params) and "monitor/utilisation/a" in metrics


@pytest.mark.parametrize("modulator", [OgmGe(), Agm(), Pmr(mu=0.1, entropy_until=2)])
def test_in_the_step_modulators_train(modulator):
    state, metrics = step_of(TASK, steps=6, one=modulator)
    assert np.isfinite(metrics["loss"]) and int(state.skipped) == 0
    assert not equal(state.params, step_of(TASK, steps=6)[0].params)


@pytest.mark.parametrize("modulator", [Monitor(every=1), OgmGe(), Agm(), Pmr()])
def test_micro_batches_change_nothing(modulator):
    """Parameters and state after three steps, to 2e-6 of each leaf's size."""
    whole, parts = (step_of(TASK, micro_batches=count, one=modulator)[0] for count in (1, 3))
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-6, atol=2e-6)


def test_gradnorm_keeps_fixed_weights_and_what_others_added():
    tasks = {"label": Classification(probes="probe"), "score": Regression(head="score", target="score")}
    task = MultiTask(tasks, {"score": 5.0})
    step, modulator = seen(task), GradNorm(shared="encoders_.*")
    pulled = Pmr(mu=1.0).reweigh(step.loss.replace(extra=step.loss.extra + 1.0), Pmr().init(step.params, step.loss))
    found = modulator.reweigh(
        pulled, modulator.init(step.params, step.loss) | {"weights": floats(label=0.5, score=1.5)[0]}
    )
    expected = 0.5 * step.loss.parts["label"].values + 7.5 * step.loss.parts["score"].values
    np.testing.assert_allclose(found.values, np.where(step.loss.mask, expected, 0), rtol=1e-6)
    np.testing.assert_array_equal(found.extra, pulled.extra)
    assert float(found.metrics["score/weight"]) == 7.5 and "pmr/pull/a" in found.metrics


def test_in_the_step_gradnorm_weighs_the_tasks():
    task = MultiTask({"label": Classification(), "score": Regression(head="score", target="score")})
    state, metrics = step_of(task, steps=4, balance=GradNorm(shared="encoders_.*"))
    weights = [float(w) for w in state.balance["balance"]["weights"].values()]
    assert sum(weights) == pytest.approx(2) and weights != [1.0, 1.0]
    assert {float(metrics[f"{name}/weight"]) for name in task.tasks} != {1.0}


def test_what_does_not_fit_is_a_sentence():
    step = seen(Classification())
    with pytest.raises(UserError, match="probes of two modalities"):
        OgmGe().init(step.params, step.loss)
    with pytest.raises(UserError, match="needs 2 to 1"):
        Agm(most=1).init(step.params, step.loss)
    with pytest.raises(UserError, match="MultiTask of two or more"):
        GradNorm().init(step.params, step.loss)
    with pytest.raises(UserError, match="no evidence"):
        Monitor().init(step.params, step.loss.replace(evidence=None))
