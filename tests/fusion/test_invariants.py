"""What every fusion keeps to: any modality may be missing, padding is nothing, order and batch position are nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Tokens
from mmjax.layers.dropout import example_keys
from mmjax.training.sharding import param_specs
from tests.fusion.cases import EVERY_SUBSET, FUSIONS, NOISY, SHAPES, WIDTH, assert_same, case, make_tokens

TOKENS = make_tokens(EVERY_SUBSET)
every_fusion = pytest.mark.parametrize("name", FUSIONS)


def finite(tree):
    return all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in jax.tree.leaves(tree))


def rolled(tokens, shift):
    return jax.tree.map(lambda leaf: jnp.roll(leaf, shift, axis=0), tokens)


@every_fusion
def test_every_subset_at_every_position_with_one_trace(name):
    expected, _ = case(name)(TOKENS)
    assert expected.fused.pooled.shape == (8, WIDTH) and expected.fused.pooled.dtype == jnp.float32
    assert {value.dtype for value in (expected.weights | expected.penalties).values()} <= {jnp.dtype("float32")}
    for shift in range(8):
        found, gradients = case(name)(rolled(TOKENS, shift))
        assert finite(found) and finite(gradients)
        assert_same(found, expected, rows=np.roll(np.arange(8), -shift))
    assert case(name).traces == 1


@every_fusion
def test_where_no_modality_is_present_nothing_is(name):
    found, _ = case(name)(TOKENS)
    np.testing.assert_array_equal(found.fused.present, EVERY_SUBSET.any(axis=1))
    constant = name in ("cross_modal", "low_rank")  # a bias, the tensor of neutral elements
    assert np.any(found.fused.pooled[0]) == constant


@every_fusion
def test_bfloat16_is_finite_with_finite_gradients(name):
    found, gradients = case(name, jnp.bfloat16)(make_tokens(EVERY_SUBSET, dtype=jnp.bfloat16))
    assert finite(found) and finite(gradients)
    assert found.fused.x.dtype == jnp.bfloat16 and found.fused.pooled.dtype == jnp.float32


@every_fusion
def test_padding_and_missing_modalities_reach_nothing(name):
    def garbage(stream):
        x = jnp.where(stream.mask[..., None], stream.x, 1e30)
        pooled = stream.pooled if stream.pooled is None else jnp.where(stream.present[:, None], stream.pooled, -1e30)
        return Tokens(x, stream.mask, pooled)

    expected, clean = case(name)(TOKENS)
    found, gradients = case(name)({key: garbage(stream) for key, stream in TOKENS.items()})
    assert_same(found, expected, atol=0)
    for left, right in zip(jax.tree.leaves(gradients[0]), jax.tree.leaves(clean[0]), strict=True):
        np.testing.assert_array_equal(left, right)
    for key, (x, pooled) in gradients[1].items():
        assert not np.any(np.asarray(x)[~np.asarray(TOKENS[key].mask)])
        assert pooled is None or not np.any(np.asarray(pooled)[~np.asarray(TOKENS[key].present)])


@every_fusion
def test_every_modality_that_is_there_is_heard(name):
    _, (_, gradients) = case(name)(TOKENS)
    for key, (x, pooled) in gradients.items():
        heard = np.abs(x).sum(axis=(1, 2)) + (0 if pooled is None else np.abs(pooled).sum(axis=1))
        there = np.asarray(TOKENS[key].present)
        assert (heard[there] > 1e-4).all(), (key, heard)


@every_fusion
@pytest.mark.parametrize("given", [("image",), ("audio", "text")])
def test_absent_from_the_call_is_missing_from_every_example(name, given):
    tokens = make_tokens(np.isin(list(SHAPES), given) & EVERY_SUBSET)
    expected, _ = case(name)(tokens)
    found = case(name).forward(case(name).params, {key: tokens[key] for key in given}, None)
    assert_same(found, expected)


@every_fusion
def test_the_order_of_the_modalities_is_nothing(name):
    def program(order):
        def apply(params, streams):
            tokens = dict(zip(SHAPES, streams, strict=True))
            return case(name).module.apply({"params": params}, {key: tokens[key] for key in order}).fused

        return str(jax.make_jaxpr(apply)(case(name).params, [TOKENS[key] for key in SHAPES]))

    assert program(list(SHAPES)) == program(list(reversed(SHAPES)))


@pytest.mark.parametrize("name", NOISY)
def test_noise_depends_on_the_key_of_the_example_alone(name):
    keys = example_keys(jax.random.key(7), 8)
    order = np.array([3, 0, 7, 6, 1, 2, 5, 4])
    tokens = {key: TOKENS[key] for key in ("audio", "text")}
    run = case(name).forward
    expected = run(case(name).params, tokens, keys)
    found = run(case(name).params, jax.tree.map(lambda leaf: leaf[order], tokens), keys[order])
    assert_same(found, expected, rows=np.argsort(order))
    other = run(case(name).params, tokens, example_keys(jax.random.key(8), 8))
    assert np.abs(other.fused.pooled - expected.fused.pooled).max() > 1e-3


@every_fusion
def test_sharding_rules_cover_every_parameter_of_a_large_model(name):
    extra = {"num_heads": 12} if "num_heads" in FUSIONS[name].keywords else {}
    module = FUSIONS[name](**extra | {"mlp_dim": 3072} if hasattr(FUSIONS[name].func, "mlp_dim") else extra)
    module = module.clone(width=768)
    tokens = make_tokens(EVERY_SUBSET, shapes={key: (2, 768) for key in SHAPES})
    params = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]
    mesh = jax.sharding.AbstractMesh((2, 2, 2), ("data", "fsdp", "tensor"))
    specs = param_specs({"fusion": params}, mesh)
    assert any(any(axis is not None for axis in spec) for spec in specs.values())


@every_fusion
def test_wrong_inputs_are_sentences(name):
    module, params = case(name).module, {"params": case(name).params}
    with pytest.raises(UserError, match="there is no modality to fuse"):
        module.apply(params, {})
    with pytest.raises(
        UserError, match=r"modality 'imge' was not there .* Did you mean 'image'\? It knows: audio, image, text"
    ):
        module.apply(params, {"imge": TOKENS["image"]})
    with pytest.raises(
        UserError, match=r"tokens of 'text' as x \[batch, tokens, width\] .* got \(8, 10\) and \(8, 5\)"
    ):
        module.apply(params, {"text": TOKENS["text"].replace(x=jnp.zeros((8, 10)))})
