"""The video encoder: what each attention sees, positions, padding, tube masking, scanning, wrong inputs."""

import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.core.types import Stream
from mmjax.encoders.video import ATTENTIONS, VideoEncoder
from mmjax.layers.dropout import example_keys
from mmjax.layers.transformer import Transformer
from mmjax.layers.tubelet import TubeletEmbedding, tubelet_mask
from mmjax.training.sharding import param_specs

SIZES = {"patch_size": 4, "width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "temporal_depth": 1}
RNG = np.random.default_rng(0)
CLIPS = Stream(
    RNG.integers(0, 256, (3, 6, 8, 8, 3), dtype=np.uint8), np.arange(6) < np.array([[6], [3], [0]])
)  # whole, half of it (its second tubelet in part), missing
TOKENS = {"joint": 12, "divided": 12, "factorised": 3, "frames": 6}


def encoder(attention, **options):
    return VideoEncoder(attention=attention, tubelet_size=1 if attention == "frames" else 2, **SIZES | options)


def drawn(module, stream=CLIPS):
    """Returns random parameters, without compiling their initialisation."""
    rng = np.random.default_rng(1)
    params = jax.eval_shape(module.init, jax.random.key(0), stream)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), params)


@functools.cache
def made(attention):
    """Returns (apply, parameters none of which is 0)."""
    module = encoder(attention)
    return jax.jit(module.apply), drawn(module)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_tokens_and_masks(attention):
    apply, params = made(attention)
    found = apply(params, CLIPS)
    assert found.x.shape == (3, TOKENS[attention], 16) and found.pooled.shape == (3, 16)
    assert np.isfinite(found.x).all() and not found.pooled[2].any()
    shares = {"frames": [1, 0.5, 0]}.get(attention, [1, 2 / 3, 0])  # a tubelet with one frame is there
    np.testing.assert_allclose(found.mask.mean(axis=1), shares)
    assert ("times" in params["params"]) == (attention != "frames")


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_padding_does_not_count(attention):
    apply, params = made(attention)
    found = apply(params, CLIPS)
    noise = RNG.integers(0, 256, CLIPS.values.shape, dtype=np.uint8)
    other = apply(params, CLIPS.replace(values=np.where(CLIPS.mask[..., None, None, None], CLIPS.values, noise)))
    np.testing.assert_array_equal(found.x, other.x)
    np.testing.assert_array_equal(found.pooled, other.pooled)
    shorter = apply(params, Stream(CLIPS.values[:, :6], CLIPS.mask & (np.arange(6) < 4)))
    np.testing.assert_allclose(shorter.pooled[1], found.pooled[1], atol=1e-6)
    assert np.abs(shorter.pooled[0] - found.pooled[0]).max() > 1e-3


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_order_in_time_is_seen_by_all_but_frames(attention):
    apply, params = made(attention)
    whole = jax.tree.map(lambda leaf: leaf[:1].repeat(3, axis=0), CLIPS)
    pairs = whole.values.reshape(3, 3, 2, 8, 8, 3)[:, [2, 0, 1]].reshape(
        whole.values.shape
    )  # tubelets in another order
    moved = np.abs(apply(params, whole).pooled - apply(params, whole.replace(values=pairs)).pooled).max()
    assert moved < 1e-6 if attention == "frames" else moved > 1e-3


@pytest.mark.parametrize(
    ("attention", "touched"),
    [
        ("joint", [True] * 12),
        ("frames", [False, False, True, False, False, False]),
        ("factorised", [True] * 3),
    ],
)
def test_which_tokens_see_one_frame(attention, touched):
    apply, params = made(attention)
    changed = CLIPS.values.copy()
    changed[0, 2] = 255 - changed[0, 2]
    moved = np.abs(apply(params, CLIPS).x[0] - apply(params, CLIPS.replace(values=changed)).x[0]).max(axis=-1)
    np.testing.assert_array_equal(moved > 1e-5, touched)


def test_divided_attention_goes_along_time_then_across_the_frame():
    module = encoder("divided", depth=1)
    params = drawn(module)
    apply = jax.jit(functools.partial(module.apply, mutable=["intermediates"]))
    found, seen = apply(params, CLIPS)
    weights = jax.tree.leaves(seen)
    assert sorted(leaf.shape for leaf in weights) == [
        (1, 9, 2, 4, 4),
        (1, 12, 2, 3, 3),
    ]  # [B * S, H, N, N], [B * N, H, S, S]
    changed = CLIPS.values.copy()
    changed[0, 4:, :4, :4] = 255 - changed[0, 4:, :4, :4]  # the first patch of the last time
    other, _ = apply(params, CLIPS.replace(values=changed))
    moved = np.abs(found.x[0] - other.x[0]).max(axis=-1).reshape(3, 4)
    assert (moved > 1e-6).all()  # along time to the first patch of each frame, from there across
    blind = jax.tree.map(lambda leaf: leaf, params)
    time = blind["params"]["transformer"]["blocks"]["attention_time"]["out"]
    time["kernel"] = np.zeros_like(time["kernel"])
    still = np.abs(apply(blind, CLIPS)[0].x[0] - apply(blind, CLIPS.replace(values=changed))[0].x[0])
    assert (still.max(axis=-1).reshape(3, 4).max(axis=1) > 1e-6).tolist() == [False, False, True]


def test_tubelets_are_cut_as_said():
    frames = RNG.normal(size=(1, 4, 4, 6, 3)).astype(np.float32)
    module = TubeletEmbedding(tubelet_size=2, patch_size=2, width=5)
    found, params = module.init_with_output(jax.random.key(0), frames)
    kernel = np.asarray(params["params"]["embedding"]["kernel"]).reshape(2, 2, 2, 3, 5)
    for time in range(2):
        for place in range(6):
            y, x = divmod(place, 3)
            box = frames[0, 2 * time : 2 * time + 2, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            np.testing.assert_allclose(found[0, time, place], np.einsum("tpqc,tpqcd->d", box, kernel), atol=1e-5)
    mask = np.array([[True, False, False, False]])
    assert tubelet_mask(jnp.asarray(mask), 2).tolist() == [[True, False]]


def test_tubes_are_masked_in_training_only_and_are_the_same_at_all_times():
    still = Stream(np.repeat(CLIPS.values[:1, :1], 4, axis=1).repeat(8, axis=0), np.ones((8, 4), bool))
    options = {"tube_masking": 0.5, "depth": 1, "tubelet_size": 1, "attention": "divided", "temporal_posemb": "sincos"}
    module = VideoEncoder(**SIZES | options)
    params = drawn(module, still)
    apply, keys = jax.jit(module.apply), example_keys(jax.random.key(1), 8)
    quiet, noisy = apply(params, still, None), apply(params, still, keys)
    assert quiet.x.shape == (8, 16, 16) and noisy.x.shape == (8, 8, 16) and noisy.mask.shape == (8, 8)
    assert len({np.asarray(row).tobytes() for row in noisy.x}) > 2  # each example has its own tubes
    alone = apply(params, still, keys[np.array([3] * 8)])
    np.testing.assert_allclose(alone.x[0], noisy.x[3], atol=1e-6)
    # without blocks to mix them the kept tokens are rows of the unmasked, the same patches at every time
    flat = jax.tree.map(np.zeros_like, params["params"]["transformer"])
    bare = {"params": params["params"] | {"transformer": flat}}
    quiet, noisy = apply(bare, still, None), apply(bare, still, keys)
    distance = np.abs(noisy.x.reshape(8, 4, 2, 1, 16) - quiet.x.reshape(8, 4, 1, 4, 16)).max(axis=-1)  # [B, S, K, N]
    kept = distance.argmin(axis=-1)  # [B, S, K]
    assert distance.min(axis=-1).max() < 1e-5 and (kept == kept[:, :1]).all()


def keys_of_transformers(module, rng):
    """Returns name -> the raw keys that each transformer of module is given."""
    found = {}

    def note(call, args, kwargs, context):
        if not isinstance(context.module, Transformer):
            return call(*args, **kwargs)
        found[context.module.name] = np.asarray(jax.random.key_data(args[2]))
        return args[0]

    params = drawn(module)
    with nn.intercept_methods(note):
        module.apply(params, CLIPS, rng)
    return found


def test_the_stages_of_factorised_draw_with_keys_of_their_own():
    rng = example_keys(jax.random.key(0), 3)
    found = keys_of_transformers(encoder("factorised"), rng)
    spatial, temporal = ({key.tobytes() for key in found[name]} for name in ("transformer", "temporal"))
    assert len(spatial) == 9 and len(temporal) == 3 and not spatial & temporal
    folded = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, 1), 6))(rng).reshape(-1)
    frames = keys_of_transformers(encoder("frames"), rng)["transformer"]
    np.testing.assert_array_equal(frames, jax.random.key_data(folded))


def unstacked(blocks, name):
    """Returns name_0, name_1, ... of stacked parameters."""
    depth = len(jax.tree.leaves(blocks)[0])
    return {f"{name}_{n}": jax.tree.map(operator.itemgetter(n), blocks) for n in range(depth)}


def test_divided_scanned_is_unrolled_also_with_noise():
    module, plain = encoder("divided", drop_path=0.4, remat="full"), encoder("divided", drop_path=0.4, scan=False)
    params = drawn(module)
    blocks = unstacked(params["params"]["transformer"]["blocks"], "block")
    unrolled = {"params": params["params"] | {"transformer": blocks}}
    rng = example_keys(jax.random.key(2), 3)
    found, same = jax.jit(module.apply)(params, CLIPS, rng), jax.jit(plain.apply)(unrolled, CLIPS, rng)
    np.testing.assert_allclose(found.x, same.x, atol=1e-5)
    assert np.abs(found.x - made("divided")[0](params, CLIPS).x).max() > 1e-3


@pytest.mark.parametrize("attention", ["divided", "factorised"])  # the latter goes the ways of the other two
def test_gradients_are_finite_in_bfloat16(attention):
    module = encoder(attention, depth=1, dtype=jnp.bfloat16, tube_masking=0.5, temporal_posemb="sincos")
    params = drawn(module)

    def loss(params):
        tokens = module.apply(params, CLIPS, example_keys(jax.random.key(0), 3))
        assert tokens.x.dtype == jnp.bfloat16
        return jnp.sum(jnp.square(tokens.pooled.astype(jnp.float32)))

    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_class_tokens_of_joint_and_factorised():
    for attention, tokens in (("joint", 13), ("factorised", 4)):
        module = encoder(attention, pool="first", posemb="sincos", temporal_posemb="sincos")
        params = drawn(module)
        assert "class_token" in params["params"] and not {"positions", "times"} & set(params["params"])
        found = jax.jit(module.apply)(params, CLIPS)
        assert found.x.shape[1] == tokens and found.mask[:, 0].tolist() == [True, True, False]
        np.testing.assert_array_equal(found.pooled, found.x[:, 0])


def test_every_large_parameter_has_a_sharding_rule():
    sizes = {"patch_size": 16, "width": 1024, "depth": 2, "num_heads": 16, "mlp_dim": 4096}
    stream = Stream(jax.ShapeDtypeStruct((1, 16, 224, 224, 3), np.uint8), jax.ShapeDtypeStruct((1, 16), np.bool_))
    for attention in ("factorised", "divided"):
        params = jax.eval_shape(VideoEncoder(attention=attention, **sizes).init, jax.random.key(0), stream)
        specs = param_specs(params, make_mesh(MeshShape(1, 1, 1), jax.devices()[:1]))
        assert specs["params/patches/embedding/kernel"] == P(None, "fsdp")


def test_wrong_inputs_are_sentences():
    def init(values=CLIPS.values, mask=CLIPS.mask, **options):
        return jax.eval_shape(VideoEncoder(**SIZES | options).init, jax.random.key(0), Stream(values, mask))

    with pytest.raises(UserError, match=r"video: expected values \[batch, time, height, width, 3\]"):
        init(CLIPS.values[0])
    with pytest.raises(UserError, match=r"got \(3, 6, 8, 8, 3\) and \(3, 5\)"):
        init(mask=CLIPS.mask[:, :5])
    with pytest.raises(UserError, match="the time 6 is not a multiple of 4"):
        init(tubelet_size=4)
    with pytest.raises(UserError, match="the height 8 is not a multiple of 5"):
        init(patch_size=5)
    with pytest.raises(UserError, match=r"attention: 'factorized' is unknown\. Did you mean 'factorised'"):
        init(attention="factorized")
    with pytest.raises(UserError, match="needs tubelet_size=1, not 2"):
        init(attention="frames")
    with pytest.raises(UserError, match="'divided' has no class token"):
        init(attention="divided", pool="first")
    with pytest.raises(UserError, match="tube_masking=1"):
        init(tube_masking=1.0)
