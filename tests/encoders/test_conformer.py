"""The Conformer encoder: convolutions against numpy, subsampled masks, padding that reaches nothing, missing rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.core.types import Stream
from mmjax.encoders.conformer import ConformerEncoder, conformer_sizes
from mmjax.layers.conformer import Conformer, ConvolutionModule
from mmjax.layers.dropout import example_keys
from mmjax.layers.mel import LogMel
from mmjax.layers.spec_augment import SpecAugment
from mmjax.training.sharding import param_specs
from tests.encoders.quick import drawn_params, gradients

MEL = LogMel(num_mels=12, n_fft=512, win_length=256, pad_mode="constant")
SIZES = {"width": 16, "depth": 2, "num_heads": 2, "mlp_dim": 32, "kernel_size": 5, "stem_channels": 4, "mel": MEL}
LENGTHS = np.array([[4000], [1700], [0], [1]])
RNG = np.random.default_rng(0)
SOUND = RNG.integers(-9000, 9000, (4, 4000)).astype(np.int16)
STREAM = Stream(np.where(np.arange(4000) < LENGTHS, SOUND, 0).astype(np.int16), np.arange(4000) < LENGTHS)


@pytest.fixture(scope="module")
def plain():
    module = ConformerEncoder(**SIZES)
    return module, drawn_params(module, STREAM), jax.jit(module.apply)


def test_masks_are_subsampled_with_the_frames(plain):
    _, params, apply = plain
    found = apply(params, STREAM)
    assert found.x.shape == (4, 7, 16)  # 25 frames, then 13, then 7
    assert found.mask.sum(axis=1).tolist() == [7, 3, 0, 1]  # of 25, 11, 0 and 1 frames
    assert found.mask[1].tolist() == [True] * 3 + [False] * 4
    np.testing.assert_allclose(found.pooled[3], found.x[3, 0], atol=1e-6)


def test_padding_and_missing_rows_reach_nothing(plain):
    _, params, apply = plain
    found, other = apply(params, STREAM), apply(params, STREAM.replace(values=SOUND))
    np.testing.assert_array_equal(
        np.where(found.mask[..., None], found.x, 0), np.where(found.mask[..., None], other.x, 0)
    )
    np.testing.assert_array_equal(found.pooled, other.pooled)


def test_a_recording_alone_gives_what_it_gives_in_a_longer_buffer(plain):
    _, params, apply = plain
    found = apply(params, STREAM)
    alone = apply(params, Stream(SOUND[1:2, :1700], np.ones((1, 1700), bool)))
    assert alone.x.shape == (1, 3, 16)
    np.testing.assert_allclose(alone.x[0], found.x[1, :3], atol=1e-5)
    np.testing.assert_allclose(alone.pooled[0], found.pooled[1], atol=1e-5)


def numpy_convolution(x, mask, params):
    """The convolution module in float64, position by position; x [N, D], mask [N]."""
    width = x.shape[1]
    dense = lambda name, y: y @ params[name]["kernel"] + params[name]["bias"]  # noqa: E731
    sigmoid = lambda y: 1 / (1 + np.exp(-y))  # noqa: E731
    up = dense("up", x)
    gated = (up[:, :width] * sigmoid(up[:, width:])) * mask[:, None]
    y, kernel = np.zeros_like(gated), params["depthwise"]["kernel"]  # [K, D]
    for n in range(len(x)):
        for k in range(len(kernel)):
            at = n + k - (len(kernel) - 1) // 2
            if 0 <= at < len(x):
                y[n] += kernel[k] * gated[at]
    y = y + params["depthwise"]["bias"]
    y = (y - y.mean(axis=1, keepdims=True)) / np.sqrt(y.var(axis=1, keepdims=True) + 1e-6)
    y = y * params["norm"]["scale"] + params["norm"]["bias"]
    return dense("down", y * sigmoid(y))


@pytest.mark.parametrize("kernel_size", [5, 4])
def test_the_convolution_module_equals_numpy(kernel_size):
    x, mask = RNG.standard_normal((2, 9, 6)).astype(np.float32), np.arange(9) < np.array([[9], [4]])
    module = ConvolutionModule(kernel_size)
    params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(module.init)(jax.random.key(0), x, mask))
    found = jax.jit(module.apply)(params, x, mask)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    for row in range(2):
        np.testing.assert_allclose(found[row], numpy_convolution(x[row], mask[row], wide), atol=1e-5)


def kept_for_the_backward_pass(kernel_size):
    """Returns the bytes that the forward pass of two scanned blocks leaves for the gradients of parameters and x."""
    module, x = Conformer(2, 2, 16, kernel_size), jax.ShapeDtypeStruct((2, 64, 8), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), x)
    kept = jax.eval_shape(lambda params, x: jax.vjp(module.apply, params, x)[1], params, x)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def test_the_taps_of_a_convolution_are_not_kept_one_by_one():
    kernels = 2 * (31 - 3) * 8 * 4  # of two layers, which the gradient of x needs
    assert kept_for_the_backward_pass(31) - kept_for_the_backward_pass(3) <= 2 * kernels


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_finite_with_missing_rows_and_noise(plain, dtype):
    module, params, _ = plain
    noise = {"dropout": 0.1, "drop_path": 0.1, "augment": SpecAugment(time_masks=1, frequency_masks=1)}
    module = module.clone(**noise, remat="core", dtype=dtype)
    keys = example_keys(jax.random.key(1), 4) if dtype == jnp.float32 else None
    found, grads = gradients(module, params, STREAM, keys)
    assert found.x.dtype == dtype
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((found, grads)))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads["params"]["stem"]))


def test_scanned_equals_unrolled(plain):
    module, params, apply = plain
    tree = dict(params["params"])
    blocks = tree["conformer"]["blocks"]
    tree["conformer"] = {f"block_{layer}": jax.tree.map(lambda leaf: leaf[layer], blocks) for layer in range(2)}  # noqa: B023
    found = jax.jit(module.clone(scan=False).apply)({"params": tree}, STREAM)
    np.testing.assert_allclose(found.x, apply(params, STREAM).x, atol=1e-5)


def test_the_large_size_is_sharded_by_the_default_rules():
    module = ConformerEncoder(**conformer_sizes("L"), stem_channels=512)
    stream = Stream(jax.ShapeDtypeStruct((2, 160_000), np.int16), jax.ShapeDtypeStruct((2, 160_000), np.bool_))
    shapes = jax.eval_shape(module.init, jax.random.key(0), stream)["params"]
    param_specs(shapes, make_mesh(MeshShape(1, 1, 1), jax.devices()[:1]))
    mlp, attention = 2 * 512 * 2048 + 2048 + 512, 4 * (512 * 512 + 512)
    convolution = 512 * 1024 + 1024 + 31 * 512 + 512 + 2 * 512 + 512 * 512 + 512
    blocks = sum(leaf.size for leaf in jax.tree.leaves(shapes["conformer"]))
    assert blocks == 17 * (2 * mlp + attention + convolution + 5 * 2 * 512)


def test_wrong_inputs_are_sentences():
    with pytest.raises(UserError, match=r"a waveform and a mask \[batch, samples\], got \(4, 4000\) and \(4, 1\)"):
        ConformerEncoder(**SIZES).init(jax.random.key(0), STREAM.replace(mask=np.ones((4, 1), bool)))
    with pytest.raises(UserError, match=r"conformer\.kernel_size=0 must be at least 1"):
        jax.eval_shape(ConformerEncoder(**SIZES | {"kernel_size": 0}).init, jax.random.key(0), STREAM)
    with pytest.raises(UserError, match="Conformer variant: 'XL' is unknown"):
        conformer_sizes("XL")
