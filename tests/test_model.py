"""MultimodalModel: published parameter counts, missing modalities, precision."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.encoders.image import ImageEncoder, vit_sizes
from mmjax.encoders.text import TextEncoder
from mmjax.fusion.coordinated import Coordinated
from mmjax.layers.dropout import example_keys
from mmjax.model import MultimodalModel
from mmjax.training.experiment import build
from tests.training.tiny import tiny_batch, tiny_config


def clip(variant: str, embed_dim: int, text_width: int) -> MultimodalModel:
    image = ImageEncoder(**vit_sizes(variant), pool="first", pre_norm=True, patch_bias=False)
    text = TextEncoder(49408, text_width, 12, text_width // 64, 4 * text_width)
    heads = {name: nn.Dense(embed_dim, use_bias=False) for name in ("image", "text")}
    return MultimodalModel({"image": image, "text": text}, Coordinated(heads, 2.6592))


def siglip(variant: str) -> MultimodalModel:
    sizes = vit_sizes(variant)
    text_sizes = {name: size for name, size in sizes.items() if name != "patch_size"}
    image = ImageEncoder(**sizes, pool="attention")
    text = TextEncoder(32_000, **text_sizes, causal=False, mask_padding=False, pool="last_position")
    heads = {"text": nn.Dense(sizes["width"])}
    return MultimodalModel({"image": image, "text": text}, Coordinated(heads, 2.3026, init_logit_bias=-10.0))


def streams(batch: int, size: int, context: int) -> dict[str, Stream]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    ids = rng.integers(0, 50, (batch, context), dtype=np.int32)
    return {
        "image": Stream(pixels, np.ones((batch, 1), bool)),
        "text": Stream(ids, np.ones((batch, context), bool)),
    }


@pytest.mark.parametrize(
    ("model", "size", "context", "expected"),
    [
        (clip("B/32", 512, 512), 224, 77, 151_277_313),
        (clip("B/16", 512, 512), 224, 77, 149_620_737),
        (clip("L/14", 768, 768), 224, 77, 427_616_513),
        (siglip("B/16"), 224, 64, 203_155_970),
        (siglip("So400m/14"), 224, 16, 877_360_306),
    ],
    ids=["clip_b32", "clip_b16", "clip_l14", "siglip_b16", "siglip_so400m"],
)
def test_parameter_counts_are_the_published_ones(model, size, context, expected):
    spec = jax.eval_shape(lambda: streams(1, size, context))
    params = jax.eval_shape(model.init, jax.random.key(0), spec)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def tiny(dtype=jnp.float32, **overrides) -> MultimodalModel:
    sizes = {"width": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64, "dtype": dtype} | overrides
    image = ImageEncoder(patch_size=8, pool="attention", **sizes)
    text = TextEncoder(50, pool="mean", causal=False, **sizes)
    heads = {name: nn.Dense(16, use_bias=False, dtype=dtype) for name in ("image", "text")}
    return MultimodalModel({"image": image, "text": text}, Coordinated(heads, 2.0))


@functools.lru_cache
def init():
    """Returns the parameters of `tiny`, which are the same in every dtype and with any dropout."""
    return jax.jit(tiny().init)(jax.random.key(0), streams(2, 16, 6))


def apply(model, params, batch, rng=None):
    return jax.jit(model.apply)(params, batch, rng)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_missing_modality_gives_finite_values_and_gradients(dtype):
    model, batch = tiny(dtype), streams(3, 16, 6)
    batch["image"] = batch["image"].replace(mask=np.array([[True], [False], [True]]))
    batch["text"] = batch["text"].replace(mask=np.array([[True] * 6, [True] * 6, [False] * 6]))
    params = init()

    def total(params):
        embeddings = model.apply(params, batch).embeddings
        return sum(jnp.sum(jnp.sin(e)) for e in embeddings.values())

    value, grads = jax.jit(jax.value_and_grad(total))(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_embeddings_are_float32_unit_vectors_in_bfloat16_too():
    model, batch = tiny(jnp.bfloat16), streams(3, 16, 6)
    outputs = apply(model, init(), batch)
    for embedding in outputs.embeddings.values():
        assert embedding.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-6)
    assert outputs.tokens["image"].x.dtype == jnp.bfloat16


def test_bfloat16_embeddings_are_close_to_float32():
    batch = streams(4, 16, 6)
    params = init()
    exact = apply(tiny(), params, batch).embeddings
    rounded = apply(tiny(jnp.bfloat16), params, batch).embeddings
    for name in exact:
        assert np.min(np.sum(exact[name] * rounded[name], axis=1)) > 0.999  # cosine


def test_padding_tokens_do_not_change_the_embedding():
    model, batch = tiny(), streams(2, 16, 6)
    batch["text"] = batch["text"].replace(mask=np.array([[True] * 4 + [False] * 2] * 2))
    params = init()
    other = dict(batch, text=batch["text"].replace(values=np.array(batch["text"].values) * batch["text"].mask))
    first, second = (apply(model, params, b).embeddings["text"] for b in (batch, other))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_scan_and_remat_do_not_change_values_or_gradients():
    batch = streams(2, 16, 6)
    keys = example_keys(jax.random.key(1), 2)
    params = init()

    def loss(params, **overrides):
        model = tiny(dropout=0.1, drop_path=0.1, **overrides)
        return sum(jnp.sum(jnp.sin(e)) for e in model.apply(params, batch, keys).embeddings.values())

    expected = jax.jit(jax.value_and_grad(loss))(params)
    for remat in ("core", "full", "dots_with_no_batch_dims_saveable"):
        found = jax.jit(jax.value_and_grad(lambda p, remat=remat: loss(p, remat=remat)))(params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), expected, found)

    def unstack(tree):
        if not isinstance(tree, dict):
            return tree
        out = {name: unstack(child) for name, child in tree.items() if name != "blocks"}
        for layer in range(2 if "blocks" in tree else 0):
            out[f"block_{layer}"] = jax.tree.map(lambda leaf, layer=layer: leaf[layer], tree["blocks"])
        return out

    np.testing.assert_allclose(expected[0], jax.jit(lambda p: loss(p, scan=False))(unstack(params)), rtol=1e-5)


def test_unknown_stream_is_a_sentence():
    model, batch = tiny(), streams(2, 16, 6)
    with pytest.raises(UserError, match=r"stream 'imge' but the model has no encoder.*Did you mean 'image'"):
        model.init(jax.random.key(0), {"imge": batch["image"]})


def test_the_noise_of_an_example_does_not_depend_on_its_batch():
    model, batch = tiny(dropout=0.3, drop_path=0.2), streams(4, 16, 6)
    params = init()
    keys = example_keys(jax.random.key(5), 4)
    whole = apply(model, params, batch, keys).embeddings["image"]
    half = apply(model, params, jax.tree.map(lambda v: v[2:], batch), keys[2:]).embeddings["image"]
    quiet = apply(model, params, batch).embeddings["image"]
    np.testing.assert_allclose(whole[2:], half, atol=1e-6)
    assert np.max(np.abs(whole - quiet)) > 0.05


def test_tokens_are_taken_as_encoded():
    streams = tiny_batch().streams
    model = build(tiny_config()).model
    params = jax.jit(model.init)(jax.random.key(0), streams)
    whole = model.apply(params, streams)
    again = model.apply(params, whole.tokens | {"text": streams["text"]})
    jax.tree.map(np.testing.assert_array_equal, whole, again)
