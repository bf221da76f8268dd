"""The AST encoder: patches and their masks, positions, padding that reaches nothing, missing recordings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.core.trees import flatten
from mmjax.core.types import Stream
from mmjax.encoders.audio import AudioEncoder, SpectrogramPatches
from mmjax.layers.dropout import example_keys
from mmjax.layers.mel import AstMel
from mmjax.layers.spec_augment import SpecAugment
from mmjax.training.sharding import param_specs
from tests.encoders.quick import drawn_params, gradients

SIZES = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "mel": AstMel(num_mels=32)}
LENGTHS = np.array([[9600], [5000], [0]])
RNG = np.random.default_rng(0)
SOUND = RNG.integers(-9000, 9000, (3, 9600)).astype(np.int16)
STREAM = Stream(np.where(np.arange(9600) < LENGTHS, SOUND, 0).astype(np.int16), np.arange(9600) < LENGTHS)


@pytest.fixture(scope="module")
def plain():
    module = AudioEncoder(**SIZES)
    return module, drawn_params(module, STREAM), jax.jit(module.apply)


def test_tokens_cover_every_frame_and_are_masked_where_only_padding_is(plain):
    _, params, apply = plain
    found = apply(params, STREAM)
    assert found.x.shape == (3, 4 * 2, 16)  # 58 frames of 32 mels
    assert found.mask.sum(axis=1).tolist() == [8, 4, 0]  # 29 frames are valid: two patches of 16 in time
    assert found.mask[1].tolist() == [True] * 4 + [False] * 4
    mean = np.where(found.mask[1][:, None], found.x[1], 0).sum(axis=0) / 4
    np.testing.assert_allclose(found.pooled[1], mean, atol=1e-6)


def test_padding_and_missing_rows_reach_nothing(plain):
    _, params, apply = plain
    found, other = apply(params, STREAM), apply(params, STREAM.replace(values=SOUND))
    np.testing.assert_array_equal(
        np.where(found.mask[..., None], found.x, 0), np.where(found.mask[..., None], other.x, 0)
    )
    np.testing.assert_array_equal(found.pooled, other.pooled)
    wider = Stream(np.pad(STREAM.values, ((0, 0), (0, 5120))), np.pad(STREAM.mask, ((0, 0), (0, 5120))))
    longer = apply(params, wider)  # the same recordings in a longer buffer; sin-cos positions take any length
    np.testing.assert_allclose(longer.x[1, :4], found.x[1, :4], atol=1e-5)
    np.testing.assert_allclose(longer.pooled[1], found.pooled[1], atol=1e-5)


@pytest.fixture(scope="module")
def trained():
    """As AST: overlapping patches, a class token and learned positions; with every noise."""
    noise = {"augment": SpecAugment(time_masks=1, frequency_masks=1), "dropout": 0.1, "drop_path": 0.1}
    module = AudioEncoder(**SIZES, pool="first", posemb="learned", stride=(10, 10), **noise, remat="full")
    return module, drawn_params(module, STREAM)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_finite_with_missing_rows_and_noise(trained, dtype):
    module, params = trained
    module, keys = module.clone(dtype=dtype), example_keys(jax.random.key(1), 3) if dtype == jnp.float32 else None
    found, grads = gradients(module, params, STREAM, keys)
    assert found.x.dtype == dtype and found.x.shape == (3, 1 + 6 * 2, 16)
    assert found.mask.sum(axis=1).tolist() == [13, 1 + 3 * 2, 0]  # patches at 0, 10 and 20 of 29 frames
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, grads)))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["params"]["patches"]))


def test_scanned_equals_unrolled(plain):
    module, params, apply = plain
    unrolled = module.clone(scan=False)
    tree = dict(params["params"])
    blocks = tree["transformer"]["blocks"]
    tree["transformer"] = {f"block_{layer}": jax.tree.map(lambda leaf: leaf[layer], blocks) for layer in range(2)}  # noqa: B023
    np.testing.assert_allclose(jax.jit(unrolled.apply)({"params": tree}, STREAM).x, apply(params, STREAM).x, atol=1e-5)


def test_patches_equal_a_strided_convolution_over_frames_that_are_filled_up():
    x = RNG.standard_normal((1, 25, 14)).astype(np.float32)
    module = SpectrogramPatches((6, 4), (4, 3), 5, fill=0.5)
    params = module.init(jax.random.key(0), x, np.ones((1, 25), bool))
    kernel = params["params"]["embedding"]["kernel"].reshape(6, 4, 1, 5)
    filled = np.pad(x, ((0, 0), (0, 1), (0, 0)), constant_values=0.5)[..., None]
    expected = jax.lax.conv_general_dilated(filled, kernel, (4, 3), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    found, mask = module.apply(params, x, np.arange(25)[None] < 12)
    assert expected.shape == (1, 6, 4, 5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert mask.tolist() == [[True, True, True, False, False, False]]


def test_augmentation_is_of_training_alone(plain):
    _, params, apply = plain
    module = AudioEncoder(**SIZES, augment=SpecAugment(time_masks=2, frequency_masks=2))
    noisy = jax.jit(module.apply)
    np.testing.assert_array_equal(noisy(params, STREAM).x, apply(params, STREAM).x)
    changed = noisy(params, STREAM, example_keys(jax.random.key(0), 3)).x
    assert np.abs(changed - apply(params, STREAM).x)[:2].max() > 1e-3


def test_the_base_size_is_sharded_by_the_default_rules():
    module = AudioEncoder(768, 12, 12, 3072, posemb="learned", pool="first")
    stream = Stream(jax.ShapeDtypeStruct((2, 160_000), np.int16), jax.ShapeDtypeStruct((2, 160_000), np.bool_))
    shapes = jax.eval_shape(module.init, jax.random.key(0), stream)["params"]
    assert flatten(shapes)["positions/table"].shape == (1 + 63 * 8, 768)
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == 12 * 7_087_872 + (256 + 1) * 768 + 768 + 505 * 768 + 2 * 768
    param_specs(shapes, make_mesh(MeshShape(1, 1, 1), jax.devices()[:1]))


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        ({}, SOUND[..., None], r"a waveform and a mask \[batch, samples\], got \(3, 9600, 1\)"),
        ({"mel": AstMel(num_mels=8)}, SOUND, "8 mel bands are less than one patch of 16"),
        ({"posemb": "rotary"}, SOUND, "posemb: 'rotary' is unknown"),
        ({"stride": (0, 1)}, SOUND, "audio.stride_frames=0 must be at least 1"),
        ({"stride": (17, 16)}, SOUND, r"stride=\(17, 16\) would skip frames or bands; patch_size is \(16, 16\)"),
        ({"stride": (16, 17)}, SOUND, r"stride=\(16, 17\) would skip frames or bands"),
    ],
)
def test_wrong_inputs_are_sentences(settings, values, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(AudioEncoder(**SIZES | settings).init, jax.random.key(0), STREAM.replace(values=values))
