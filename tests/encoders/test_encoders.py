"""Image and text encoders: shapes, pooling, normalisation, patch dropout, causality, wrong inputs."""

import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.encoders.image import ImageEncoder, vit_sizes
from mmjax.encoders.text import TextEncoder
from mmjax.layers.dropout import example_keys

SIZES = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
RNG = np.random.default_rng(0)
PIXELS = Stream(RNG.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8), np.ones((2, 1), bool))
IDS = Stream(RNG.integers(0, 20, (2, 6), dtype=np.int32), np.arange(6) < np.array([[6], [4]]))


def run(module, stream, rng=None):
    params = jax.jit(module.init)(jax.random.key(0), stream)
    return params, jax.jit(module.apply)(params, stream, rng)


@pytest.mark.parametrize(
    ("pool", "posemb", "tokens"),
    [("first", "learned", 5), ("mean", "sincos2d", 4), ("attention", "learned", 4), ("none", "learned", 4)],
)
def test_image_tokens_and_pooling(pool, posemb, tokens):
    params, found = run(ImageEncoder(patch_size=4, pool=pool, posemb=posemb, **SIZES), PIXELS)
    assert found.x.shape == (2, tokens, 16) and found.mask.shape == (2, tokens)
    assert ("positions" in params["params"]) == (posemb == "learned")
    assert (found.pooled is None) == (pool == "none") or found.pooled.shape == (2, 16)


def test_pixels_are_normalised_on_the_device():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    module = ImageEncoder(patch_size=4, mean=mean, std=std, **SIZES)
    params, found = run(module, PIXELS)
    plain = (PIXELS.values / 255 - np.array(mean)) / np.array(std)
    other = ImageEncoder(patch_size=4, mean=(0.0,) * 3, std=(1 / 255,) * 3, **SIZES)
    same = other.apply(params, PIXELS.replace(values=plain.astype(np.float32)))
    np.testing.assert_allclose(found.x, same.x, atol=1e-4)


def test_hidden_patches_cannot_be_seen_and_none_hidden_changes_nothing():
    sizes = {"patch_size": 4, "mask_token": True, **SIZES}
    params, plain = run(ImageEncoder(**sizes), PIXELS)
    hidden = np.array([[True, False, False, False]] * 2)
    other = PIXELS.values.copy()
    other[:, :4, :4] = 255 - other[:, :4, :4]
    apply = jax.jit(ImageEncoder(**sizes).apply)
    first, second = (apply(params, Stream(values, PIXELS.mask, hidden)) for values in (PIXELS.values, other))
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.hidden, np.pad(hidden, ((0, 0), (1, 0))))  # the class token is not
    assert np.abs(first.x - plain.x).max() > 1e-3
    same = jax.jit(ImageEncoder(patch_size=4, **SIZES).apply)(params, PIXELS)
    np.testing.assert_array_equal(plain.x, same.x)
    assert plain.hidden is None


def test_hidden_patches_that_do_not_fit_are_sentences():
    hidden = PIXELS.replace(hidden=np.zeros((2, 4), bool))
    with pytest.raises(UserError, match="set its mask_token to True"):
        ImageEncoder(patch_size=4, **SIZES).init(jax.random.key(0), hidden)
    with pytest.raises(UserError, match=r"expected hidden \[2, 4\]"):
        ImageEncoder(patch_size=4, mask_token=True, **SIZES).init(
            jax.random.key(0), PIXELS.replace(hidden=np.zeros((2, 5), bool))
        )


def test_the_parts_of_bert():
    options = {"max_length": 9, "token_types": 2, "embedding_norm": True, "causal": False, "pool": "first"}
    params, found = run(TextEncoder(20, **options, **SIZES), IDS)
    params = params["params"]
    assert params["positions"]["table"].shape == (9, 16) and params["token_types"].shape == (2, 16)
    assert params["norm_embedding"]["scale"].shape == (16,) and found.x.shape == (2, 6, 16)
    with pytest.raises(UserError, match="10 positions came, but the table is made for 9 at most"):
        TextEncoder(20, **options, **SIZES).init(jax.random.key(0), Stream(np.zeros((1, 10), int), np.ones((1, 10))))


def test_patch_dropout_keeps_the_class_token_and_a_share_of_patches_in_training_only():
    module = ImageEncoder(patch_size=4, patch_dropout=0.5, **SIZES)
    _, quiet = run(module, PIXELS)
    _, noisy = run(module, PIXELS, example_keys(jax.random.key(0), 2))
    assert quiet.x.shape[1] == 5 and noisy.x.shape[1] == 3


def test_causal_text_does_not_see_what_follows():
    module = TextEncoder(20, **SIZES)
    params, found = run(module, IDS)
    changed = IDS.replace(values=np.where(np.arange(6) < 3, IDS.values, (IDS.values + 1) % 20))
    other = module.apply(params, changed)
    np.testing.assert_allclose(found.x[:, :3], other.x[:, :3], atol=1e-6)
    assert np.abs(found.x[:, 3:] - other.x[:, 3:]).max() > 1e-3


@pytest.mark.parametrize(("pool", "row"), [("last", 3), ("last_position", 5), ("first", 0)])
def test_text_pooling(pool, row):
    _, found = run(TextEncoder(20, pool=pool, **SIZES), IDS)
    np.testing.assert_array_equal(found.pooled[1], found.x[1, row])


def test_siglip_text_sees_its_padding_and_rotary_has_no_table():
    module = TextEncoder(20, causal=False, mask_padding=False, pool="mean", posemb="rotary", **SIZES)
    params, found = run(module, IDS)
    assert "positions" not in params["params"]
    other = module.apply(params, IDS.replace(values=np.where(IDS.mask, IDS.values, 7)))
    assert np.abs(found.pooled[1] - other.pooled[1]).max() > 1e-4


def test_wrong_inputs_are_sentences():
    with pytest.raises(UserError, match=r"image: expected values \[batch, height, width, 3\], got \(2, 6\)"):
        ImageEncoder(patch_size=4, **SIZES).init(jax.random.key(0), IDS)
    with pytest.raises(UserError, match=r"text: expected values \[batch, tokens\], got \(2, 8, 8, 3\)"):
        TextEncoder(20, **SIZES).init(jax.random.key(0), PIXELS)
    with pytest.raises(UserError, match=r"ViT variant 'C/16': 'C' is unknown"):
        vit_sizes("C/16")
    with pytest.raises(UserError, match="patch size in pixels"):
        vit_sizes("B")
    assert vit_sizes("H/14") == {"width": 1280, "depth": 32, "num_heads": 16, "mlp_dim": 5120, "patch_size": 14}
