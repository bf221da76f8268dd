"""FLAVA: analytic losses at the start, each objective's own rows, one program, devices, precision, learning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.core.errors import UserError
from mmjax.data.text import TextTransform
from mmjax.data.tokenizer import Tokenizer
from mmjax.layers.dropout import example_keys
from mmjax.tasks.flava import OBJECTIVES, Flava
from mmjax.tasks.masking import Masking
from mmjax.tasks.multi import MultiTask
from tests.devices import run_on_devices
from tests.quick import jit
from tests.tasks.flava import (
    CODES,
    MASKING,
    PATCH,
    SIZE,
    VOCABULARY,
    flava_model,
    flava_task,
    image_tokenizer,
    loss_of,
    mixed_batch,
)

BATCH = mixed_batch()
ROW = np.arange(SIZE)
PAIRS = (ROW % 4 < 2) & (ROW != 4)
KEYS = example_keys(jax.random.key(0), SIZE)


@functools.lru_cache
def fresh(codes):
    """Returns the first parameters, which are the same in every dtype."""
    return jit(flava_model(codes=codes).init)(jax.random.key(0), BATCH.streams)["params"]


@functools.lru_cache
def compiled(dtype=jnp.float32, codes=True, **settings):
    """Returns (params, jitted value_and_grad of (params, batch, keys), the list that each trace adds to)."""
    model, task, traces = flava_model(dtype, codes), flava_task(codes, **settings), []
    params = fresh(codes)

    def loss(params, batch, keys):
        traces.append(1)
        found = loss_of(model, task, params, batch, keys=keys)
        return found.mean(), found

    return params, jit(jax.value_and_grad(loss, has_aux=True)), traces


def test_every_loss_starts_at_its_analytic_value():
    """Within 2 %: the heads begin at 0, and the vectors of a fresh projection are nearly one."""
    params, call, _ = compiled()
    (_, found), _ = call(params, BATCH, KEYS)
    expected = {"matching": 2, "mim": CODES, "mlm": VOCABULARY, "mmm_image": CODES, "mmm_text": VOCABULARY}
    expected["contrastive"] = PAIRS.sum()
    assert set(expected) == set(OBJECTIVES)
    for name, ways in expected.items():
        assert float(found.metrics[f"{name}/loss"]) == pytest.approx(np.log(ways), rel=0.02), name


def test_each_objective_counts_its_own_rows():
    params, call, _ = compiled()

    def metrics(rows):
        return call(params, BATCH.replace(mask=BATCH.mask & rows), KEYS)[0][1].metrics

    everything = metrics(ROW >= 0)
    for name, rows in {"mim": ROW % 4 == 2, "mlm": ROW % 4 == 3, "mmm_image": PAIRS, "mmm_text": PAIRS}.items():
        assert metrics(rows)[f"{name}/loss"] == everything[f"{name}/loss"] > 0
        assert metrics(~rows)[f"{name}/loss"] == 0  # the others alone
    assert metrics(~PAIRS)["contrastive/loss"] == metrics(~PAIRS)["matching/loss"] == 0
    assert np.isfinite(list(metrics(ROW < 0).values())).all()


def test_weights_scale_the_objectives():
    params, call, _ = compiled()
    (plain, found), _ = call(params, BATCH, KEYS)
    parts = {name: float(found.metrics[f"{name}/loss"]) for name in OBJECTIVES}
    assert float(plain) == pytest.approx(sum(parts.values()), rel=1e-5)
    task = flava_task(weights={"mim": 0.0, "matching": 3.0})
    (weighed, _) = jit(lambda p: (loss_of(flava_model(), task, p, BATCH, keys=KEYS).mean(), 0))(params)
    assert float(weighed) == pytest.approx(float(plain) - parts["mim"] + 2 * parts["matching"], rel=1e-5)


def test_what_weighs_nothing_is_left_out_with_its_decoder():
    model = flava_model(codes=False)
    towers = model.clone(fusion=model.fusion.coordinated, decoders={n: model.decoders[n] for n in ("mim", "mlm")})
    params = jit(towers.init)(jax.random.key(0), BATCH.streams)["params"]
    task = flava_task(codes=False, weights={"matching": 0, "mmm_image": 0, "mmm_text": 0})
    found = jit(lambda params: loss_of(towers, task, params, BATCH, keys=KEYS))(params)
    parts = {name: float(found.metrics[f"{name}/loss"]) for name in ("contrastive", "mim", "mlm")}
    assert {name.partition("/")[0] for name in found.metrics} == set(parts) and min(parts.values()) > 0
    assert float(found.mean()) == pytest.approx(sum(parts.values()), rel=1e-5)
    joint = towers.clone(fusion=model.fusion.joint)  # which embeds nothing and has no logit_scale
    params = jit(joint.init)(jax.random.key(0), BATCH.streams)["params"]
    found = loss_of(joint, dataclasses.replace(task, weights=task.weights | {"contrastive": 0}), params, BATCH)
    assert {name.partition("/")[0] for name in found.metrics} == {"mim", "mlm"}
    with pytest.raises(UserError, match="all are 0"):
        flava_task(weights=dict.fromkeys(OBJECTIVES, 0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pairs_and_singles_anywhere_compile_once_with_finite_gradients(dtype):
    params, call, traces = compiled(dtype)
    before = len(traces)
    for shift in (0, 1, 6):
        (loss, _), grads = call(params, mixed_batch(np.roll(ROW, shift)), KEYS)
        assert np.isfinite(loss) and all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(grads))
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert len(traces) <= before + 1
    moved = {name for name, tree in grads.items() if any(np.asarray(leaf).any() for leaf in jax.tree.leaves(tree))}
    assert "teachers_codes" not in moved and {"encoders_image", "encoders_text", "decoders_mim"} <= moved


def test_what_is_missing_cannot_be_seen():
    params, call, _ = compiled()
    streams = {}
    for name, stream in BATCH.streams.items():
        lacking = ~stream.mask.any(axis=1).reshape(-1, *(1,) * (stream.values.ndim - 1))
        streams[name] = stream.replace(values=np.where(lacking, 17, stream.values).astype(stream.values.dtype))
    (plain, _), grads = call(params, BATCH, KEYS)
    (other, _), other_grads = call(params, BATCH.replace(streams=streams), KEYS)
    assert plain == other
    jax.tree.map(np.testing.assert_array_equal, grads, other_grads)


def test_targets_are_pixels_where_there_is_no_teacher():
    params, call, _ = compiled(codes=False)
    (loss, found), grads = call(params, BATCH, KEYS)
    assert float(found.metrics["mim/loss"]) == pytest.approx(1, rel=0.02)  # of normalised patches
    assert "mlm/accuracy" in found.metrics and "mim/accuracy" not in found.metrics  # of pixels there is none
    assert np.isfinite(loss) and np.asarray(grads["decoders_mim"]["logits"]["kernel"]).any()


@pytest.mark.parametrize("settings", [{}, pytest.param({"whole_pairs": True}, marks=pytest.mark.slow)])
def test_every_loss_falls(settings):
    params, call, _ = compiled(**settings)
    optimizer = optax.masked(optax.adam(3e-3), {name: name != "teachers_codes" for name in params})

    @jit
    def update(grads, state, params):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state, history = optimizer.init(params), []
    for step in range(120):
        (_, found), grads = call(params, BATCH, example_keys(jax.random.key(step), SIZE))
        grads = grads | {"teachers_codes": jax.tree.map(jnp.zeros_like, grads["teachers_codes"])}
        params, state = update(grads, state, params)
        history.append({name: float(found.metrics[f"{name}/loss"]) for name in OBJECTIVES})
    for name in OBJECTIVES:
        first, last = history[0][name], np.mean([losses[name] for losses in history[-10:]])
        assert last < 0.95 * first, (name, first, last)


def test_eight_devices_agree_with_one():
    """The loss, what is hidden and which negatives are drawn; relative difference below 3e-6."""
    run_on_devices("""
        import jax, numpy as np, optax
        from mmjax.core.mesh import MeshShape, batch_sharding, make_mesh
        from tests.quick import jit
        from tests.tasks.flava import flava_model, flava_task, loss_of, mixed_batch

        model, batch = flava_model(), mixed_batch()
        params = jit(model.init)(jax.random.key(0), batch.streams)["params"]

        def call(params, batch):
            found = loss_of(model, flava_task(block_size=8), params, batch)  # blocks of two devices' rows
            return found.mean(), found.metrics

        one = jit(jax.value_and_grad(call, has_aux=True))(params, batch)
        mesh = make_mesh(MeshShape(data=4, fsdp=2))
        with jax.set_mesh(mesh):
            placed = jax.device_put(batch, batch_sharding(mesh))
            many = jit(jax.value_and_grad(lambda p, b: call(p, b), has_aux=True))(params, placed)
        difference = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), one[1], many[1])
        found = abs(float(one[0][0]) / float(many[0][0]) - 1), optax.global_norm(difference) / optax.global_norm(one[1])
        assert max(found) < 3e-6, found
        for name, value in one[0][1].items():
            np.testing.assert_allclose(value, many[0][1][name], rtol=1e-5, atol=1e-6, err_msg=name)
        """)


def test_wrong_settings_are_sentences():
    with pytest.raises(UserError, match=r"Flava.weights names mlmm; its objectives are contrastive"):
        Flava(MASKING, weights={"mlmm": 1.0})
    params = compiled()[0]
    for task, words in (
        (
            Flava(MASKING, codes="code", block_size=4),
            "Flava.codes: the teacher: 'code' is unknown. Did you mean 'codes'",
        ),
        (flava_task(block_size=5), "blocks of 5 rows do not fill the 32"),
    ):
        with pytest.raises(UserError, match=words):
            jax.eval_shape(lambda params, task=task: loss_of(flava_model(), task, params, BATCH), params)
    finer = flava_model().clone(teachers={"codes": image_tokenizer(patch_size=2)})
    with pytest.raises(UserError, match=r"'codes' gives 16 codes for the 4 patches of 4 pixels of an image of 8 x 8"):
        jax.eval_shape(
            lambda key: loss_of(finer, flava_task(), finer.init(key, BATCH.streams)["params"], BATCH), KEYS[0]
        )


def test_a_decoder_too_small_for_what_is_hidden_is_refused():
    task = dataclasses.replace(flava_task(), masking=dataclasses.replace(MASKING, image_share=0.75))
    with pytest.raises(UserError, match=r"decoder 'mim' predicts 2 tokens .* share of 0.75 hides \d+; set its `most`"):
        loss_of(flava_model(), task, fresh(True), BATCH, keys=KEYS)


@pytest.mark.parametrize(("name", "of", "classes"), [("mlm", "text", VOCABULARY), ("mim", "image", CODES)])
def test_a_decoder_of_fewer_classes_than_there_are_is_refused(name, of, classes):
    model = flava_model()
    small = model.clone(decoders={**model.decoders, name: model.decoders[name].clone(size=4)})
    params = jax.eval_shape(lambda: small.init(jax.random.key(0), BATCH.streams)["params"])
    with pytest.raises(UserError, match=f"decoder '{name}' tells 4 classes, .*'{of}' .* set its `size` to {classes}"):
        jax.eval_shape(lambda params: loss_of(small, flava_task(), params, BATCH), params)


def test_words_that_the_model_or_the_tokenizer_knows_otherwise_are_refused():
    transforms = {"text": TextTransform(tokenizer=Tokenizer.bytes())}
    special = transforms["text"].tokenizer.special
    around = sorted({special.bos, special.eos, special.pad})
    flava_task().check(flava_model(), {"text": TextTransform()})
    dataclasses.replace(flava_task(), masking=dataclasses.replace(MASKING, special=around)).check(
        flava_model(), transforms
    )
    wide = dataclasses.replace(flava_task(), masking=dataclasses.replace(MASKING, vocab_size=VOCABULARY + 1))
    with pytest.raises(UserError, match=r"vocab_size is 25, but that of model.encoders.text is 24"):
        wide.check(flava_model(), transforms)
    bare = dataclasses.replace(flava_task(), masking=dataclasses.replace(MASKING, special=around[1:]))
    with pytest.raises(UserError, match=rf"the tokenizer of 'text' puts \[{around[0]}\] around a text"):
        bare.check(flava_model(), transforms)


@pytest.mark.parametrize(("mask_id", "special"), [(VOCABULARY, (0, 1)), (5, (0, VOCABULARY + 3)), (-1, ())])
def test_ids_that_the_vocabulary_has_not_are_refused(mask_id, special):
    with pytest.raises(UserError, match=r"must be ids below vocab_size=24"):
        Masking(PATCH, VOCABULARY, mask_id, special)


def test_it_shares_its_model_with_no_other_task():
    with pytest.raises(UserError, match=r"MultiTask\.tasks\.flava: Flava runs the model 3 times"):
        MultiTask({"flava": flava_task()})


def test_a_modality_that_the_model_hides_makes_no_pair():
    model = flava_model().clone(modality_dropout={"text": 1.0})
    found = loss_of(model, flava_task(), fresh(True), BATCH, keys=KEYS)
    assert found.metrics["contrastive/loss"] == found.metrics["matching/loss"] == 0


def test_a_row_whose_text_the_model_hides_is_no_negative():
    model, given = flava_model().clone(modality_dropout={"text": 0.2}), []

    def apply(params, streams, rng):
        given.append(streams)
        return model.apply({"params": params}, streams, rng)

    by_example, _ = flava_task(block_size=SIZE).embed(apply, fresh(True), BATCH, KEYS)
    _, _, count = by_example["found"]["matching"]
    assert 0 < jnp.sum(count) < PAIRS.sum()
    for tokens in given[-1].values():  # those of the mismatched pairs
        assert tokens.present[count > 0].all()
