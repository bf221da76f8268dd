"""Binding: one pair is the contrastive task, absent pairs change nothing, each pair has its own temperature."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.trees import flatten
from mmjax.core.types import Batch, Stream, Tokens
from mmjax.fusion.coordinated import Coordinated
from mmjax.layers.dropout import dropout, example_keys
from mmjax.model import MultimodalModel
from mmjax.tasks.binding import Binding, anchored
from mmjax.tasks.contrastive import Contrastive
from mmjax.tasks.task import run
from mmjax.training.grad_cache import value_and_grad
from mmjax.training.optimizer import Optimizer
from tests.devices import run_on_devices
from tests.quick import jit

NAMES = ("image", "text", "audio")
PAIRS = anchored("image", ("text", "audio"))
SIZE = 16


class Vector(nn.Module):
    """values [B, C] -> one pooled vector, with noise."""

    @nn.compact
    def __call__(self, stream, rng=None):
        x = dropout(nn.Dense(6, name="linear")(stream.values), 0.1, rng)  # [B, D]
        return Tokens(x[:, None], stream.mask, x)


def model(kind: str = "softmax", pairs=PAIRS, names=NAMES) -> MultimodalModel:
    """Returns a tower for each modality, and scalars for each pair."""
    bias = -2.0 if kind == "sigmoid" else None
    projections = {name: nn.Dense(4, use_bias=False) for name in names}
    return MultimodalModel({name: Vector() for name in names}, Coordinated(projections, 1.5, bias, pairs))


def batch(rows, names=NAMES, seed: int = 0, garbage: float = 0.0) -> Batch:
    """Returns SIZE rows that are alike in what they show: row r has the modalities named by rows[r % len(rows)]."""
    rng, streams = np.random.default_rng(seed), {}
    shown = rng.normal(size=(SIZE, 5)).astype(np.float32)
    for name in names:
        values = shown + rng.normal(size=(SIZE, 5)).astype(np.float32)
        there = np.array([name in rows[row % len(rows)] for row in range(SIZE)])
        values[~there] = garbage
        streams[name] = Stream(values, there[:, None])
    group = np.where(np.arange(SIZE) == 9, 1, np.arange(SIZE)).astype(np.int32)
    return Batch(streams, group, np.arange(SIZE) != 4)


HALVES = (("image", "text"), ("image", "audio"))


@functools.lru_cache
def params(kind="softmax", pairs=tuple(PAIRS), names=NAMES):
    """Returns parameters, as one pair's are in all."""
    shapes = jax.eval_shape(model(kind, pairs, names).init, jax.random.key(0), batch(HALVES, names).streams)["params"]
    rng = np.random.default_rng(3)
    made = {}
    for path, leaf in sorted(flatten(shapes).items()):
        value = {"logit_scale": 1.5, "logit_bias": -2.0}.get(path.split("/")[1])
        made[path] = rng.normal(0, 0.4, leaf.shape).astype(np.float32) if value is None else np.float32(value)
    return jax.tree.unflatten(jax.tree.structure(shapes), [made[path] for path in flatten(shapes)])


def grads_of(task, module, params, batch, micro_batches: int = 1):
    """Returns ((loss, TaskLoss), gradient)."""

    @jit
    def call(params, batch):
        apply = lambda params, streams, rng: module.apply({"params": params}, streams, rng)  # noqa: E731
        return value_and_grad(task, apply, params, batch, example_keys(jax.random.key(1), SIZE), micro_batches)

    return call(params, batch)


@pytest.mark.parametrize("anchor", NAMES[:2])
def test_others_come_to_an_anchor_that_stays_as_it_is(anchor):
    pairs = anchored(anchor, [name for name in NAMES if name != anchor])
    start = params(pairs=tuple(pairs))
    optimizer = Optimizer(frozen=[f"encoders_{anchor}/.*", f"fusion/projections_{anchor}/.*"])
    tx = optimizer.build(start, lambda step: 0.1)
    seen = batch([pair.split("+") for pair in pairs])
    _, grads = grads_of(Binding(pairs), model(pairs=pairs), start, seen)
    updates, _ = tx.update(grads, tx.init(start), start)
    moved = {path: bool(np.asarray(leaf).any()) for path, leaf in flatten(updates).items()}
    frozen = {path for path in moved if f"_{anchor}/" in path}
    assert frozen == {path for path, moves in moved.items() if not moves} and len(moved) > len(frozen) > 0


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("form", ["dense", "ring"])
def test_one_pair_is_the_contrastive_task_to_the_bit(kind, form):
    names = ("image", "text")
    rows = batch((names, names, ("image",)), names)
    alone = params(kind, (), names)
    (loss, task_loss), grads = grads_of(Contrastive(*names, kind, form), model(kind, (), names), alone, rows)
    named = {name + "/image+text" * name.startswith("logit"): leaf for name, leaf in alone["fusion"].items()}
    task, module = Binding(["image+text"], kind=kind, form=form), model(kind, ("image+text",), names)
    (found, bound_loss), bound_grads = grads_of(task, module, alone | {"fusion": named}, rows)
    assert float(found) == float(loss) > 0
    np.testing.assert_array_equal(bound_loss.mask, task_loss.mask)
    bound_grads = {path.removesuffix("/image+text"): leaf for path, leaf in flatten(bound_grads).items()}
    assert set(bound_grads) == set(flatten(grads))
    for path, leaf in flatten(grads).items():
        np.testing.assert_array_equal(bound_grads[path], leaf, err_msg=path)
        assert np.abs(leaf).max() > 0 or path.endswith("bias"), path


def test_the_loss_is_the_weighted_sum_of_the_pairs_over_their_own_rows():
    rows = batch((*HALVES, ("image", "audio"), NAMES))
    task = Binding(PAIRS, {"image+audio": 0.5}, form="dense")
    (loss, task_loss), _ = grads_of(task, model(), params(), rows)
    outputs = jit(model().apply)({"params": params()}, rows.streams, example_keys(jax.random.key(1), SIZE))
    expected = {}
    for pair in PAIRS:
        first, second = pair.split("+")
        scalars = {"logit_scale": outputs.scalars[f"logit_scale/{pair}"]}
        by_example = {"pair": (outputs.embeddings[first], outputs.embeddings[second]), "penalties": {}}
        by_example["both"] = np.float32(rows.streams[first].present & rows.streams[second].present)
        expected[pair] = Contrastive(first, second, form="dense").loss(by_example, scalars, rows)
        assert float(task_loss.metrics[f"{pair}/loss"]) == pytest.approx(float(expected[pair].mean()), rel=1e-6)
        assert float(task_loss.metrics[f"{pair}/rows"]) == float(expected[pair].mask.sum())
    assert [float(task_loss.metrics[f"{pair}/rows"]) for pair in PAIRS] == [7, 12]
    assert float(loss) == pytest.approx(
        sum(w * float(expected[p].mean()) for p, w in zip(PAIRS, (1, 0.5), strict=True)), rel=1e-6
    )


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_an_absent_pair_adds_nothing_and_leaves_its_tower_and_scalars_alone(kind):
    rows = batch((("image", "text"), ("audio",), ("image",)), garbage=99.0)
    (loss, task_loss), grads = grads_of(Binding(PAIRS, kind=kind), model(kind), params(kind), rows)
    only, _ = grads_of(Binding(["image+text"], kind=kind), model(kind), params(kind), rows)
    assert float(loss) == float(only[0]) > 0
    assert float(task_loss.metrics["image+audio/loss"]) == float(task_loss.metrics["image+audio/rows"]) == 0
    for path, leaf in flatten(grads).items():
        assert np.isfinite(leaf).all(), path
        assert not ("audio" in path and np.any(leaf)), path
    (loss, _), grads = grads_of(Binding(PAIRS, kind=kind), model(kind), params(kind), batch(((), ("image",))))
    assert float(loss) == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_every_pair_has_its_own_temperature(kind):
    scalars = ("logit_scale", "logit_bias") if kind == "sigmoid" else ("logit_scale",)
    (_, both), grads = grads_of(Binding(PAIRS, kind=kind), model(kind), params(kind), batch(HALVES))
    for name in scalars:
        found = [float(grads["fusion"][f"{name}/{pair}"]) for pair in PAIRS]
        assert all(abs(value) > 1e-4 for value in found) and found[0] != found[1]
    for pair in PAIRS:
        assert float(both.metrics[f"{pair}/logit_scale"]) == pytest.approx(np.exp(1.5), rel=1e-6)
    higher = jax.tree.map(np.array, params(kind))
    higher["fusion"]["logit_scale/image+audio"] += 1.0
    _, other = grads_of(Binding(PAIRS, kind=kind), model(kind), higher, batch(HALVES))[0]
    assert other.metrics["image+text/loss"] == both.metrics["image+text/loss"]
    assert other.metrics["image+audio/loss"] != both.metrics["image+audio/loss"]


def test_the_bounds_hold_every_temperature():
    optimizer = Optimizer("sgd", 1.0, clip_norm=None, bounds={"fusion/logit_scale/.*": (0.0, 1.6)}).build(
        params(), lambda _: 1.0
    )
    grads = jax.tree.map(lambda leaf: -np.ones_like(leaf), params())
    updates, _ = optimizer.update(grads, optimizer.init(params()), params())
    for pair in PAIRS:
        assert 1.5 + float(updates["fusion"][f"logit_scale/{pair}"]) == pytest.approx(1.6)


def test_pairs_mixed_freely_compile_once():
    traces, module, task = [], model(), Binding([*PAIRS, "text+audio"])
    made = params("softmax", (*PAIRS, "text+audio"))
    module = model(pairs=(*PAIRS, "text+audio"))

    @jit
    def call(params, batch):
        traces.append(batch)
        apply = lambda params, streams, rng: module.apply({"params": params}, streams, rng)  # noqa: E731
        return jax.value_and_grad(lambda params: run(task, apply, params, batch).mean())(params)

    counts = []
    for mix in (HALVES, (*HALVES, ("text", "audio")), (("image",), ("text",)), (NAMES, (), ("audio",)), (NAMES,)):
        loss, grads = call(made, batch(mix, garbage=7.0))
        assert np.isfinite(loss) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
        counts.append(float(loss) > 0)
    assert counts == [True, True, False, True, True] and len(traces) == 1


def test_micro_batches_give_the_same_gradient():
    whole, parts = (grads_of(Binding(PAIRS), model(), params(), batch(HALVES), count) for count in (1, 4))
    assert float(whole[0][0]) == pytest.approx(float(parts[0][0]), rel=1e-6)
    for path, leaf in flatten(whole[1]).items():
        np.testing.assert_allclose(flatten(parts[1])[path], leaf, atol=1e-6, err_msg=path)


def test_eight_devices_agree_with_one():
    """Relative difference of the loss, and of the gradient as one vector, below 2e-6: float32 sums in another order."""
    run_on_devices("""
        import jax, numpy as np, optax
        from mmjax.core.mesh import MeshShape, batch_sharding, make_mesh
        from mmjax.tasks.binding import Binding
        from tests.tasks.test_binding import HALVES, NAMES, PAIRS, batch, grads_of, model, params

        rows = batch((*HALVES, ("audio",), NAMES, ("image", "audio")))
        for kind in ("softmax", "sigmoid"):
            task = Binding(PAIRS, {"image+audio": 2.0}, kind=kind)
            (one, _), grads = grads_of(task, model(kind), params(kind), rows)
            mesh = make_mesh(MeshShape(data=4, fsdp=2))
            with jax.set_mesh(mesh):
                placed = jax.device_put(rows, batch_sharding(mesh))
                (many, _), spread = grads_of(task, model(kind), params(kind), placed)
            difference = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), grads, spread)
            found = abs(float(one) / float(many) - 1), optax.global_norm(difference) / optax.global_norm(grads)
            assert max(found) < 2e-6, (kind, found)
        """)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pairs": ()}, "must be a list of at least one pair"),
        ({"pairs": "image+text"}, "must be a list of at least one pair"),
        ({"pairs": ["image"]}, "'image' must be two modalities with a"),
        ({"pairs": ["image+image"]}, "'image.image' must be two modalities"),
        ({"pairs": ["image+text", "text+image"]}, "has a pair twice"),
        ({"weights": {"image+txt": 1.0}}, r"'image\+txt' is unknown. Did you mean 'image\+text'"),
        ({"weights": {"image+text": -1.0}}, "must be at least 0"),
        ({"kind": "softmx"}, "Contrastive.kind: 'softmx' is unknown"),
    ],
)
def test_mistakes_are_sentences(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Binding(**settings)


def test_a_fusion_or_batch_that_does_not_fit_is_a_sentence():
    with pytest.raises(UserError, match=r"no scalar 'logit_scale/image\+text'.*model.fusion.pairs=\['image\+text'"):
        grads_of(Binding(PAIRS), model(pairs=()), params(pairs=()), batch(HALVES))
    with pytest.raises(UserError, match="Binding: the modality: 'audio' is unknown"):
        grads_of(Binding(PAIRS), model(), params(), batch(HALVES, ("image", "text")))
