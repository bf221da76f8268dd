"""Series encoder: patches against numpy, missing channels and samples, normalisation, spectra, Fourier features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.encoders.timeseries import SeriesEncoder
from mmjax.layers.dropout import example_keys
from mmjax.layers.fourier import fourier_features, geometric_wavelengths
from mmjax.layers.series import SeriesStem, instance_norm, log_power, num_patches, series_patches

SIZES = {"patch_size": 4, "width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
NAN = np.float32(np.nan)


def series(missing: bool = True) -> Stream:
    """[4, 12, 3]: all there; its end padded; a channel missing and a patch measured in part; a missing modality."""
    values = np.random.default_rng(0).normal(size=(4, 12, 3)).astype(np.float32)
    mask = np.arange(12) < np.array([12, 7, 12, 0])[:, None]
    if missing:
        values[2, :, 1] = NAN
        values[2, 1:3, 0] = NAN
    return Stream(values, mask)


def init(module, stream):
    """Returns parameters of the module's shapes, without compiling its initialisation."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(module.init, jax.random.key(0), stream)
    return jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes)


apply = jax.jit(lambda module, params, stream: module.apply(params, stream), static_argnums=0)


def run(module, stream):
    params = init(module, stream)
    return params, apply(module, params, stream)


@pytest.fixture(scope="module")
def separate():
    module = SeriesEncoder(**SIZES)
    return module, *run(module, series())


def test_separate_channels_give_a_token_a_patch_of_each(separate):
    _, params, found = separate
    assert found.x.shape == (4, 9, 16) and found.pooled.shape == (4, 16) and found.x.dtype == jnp.float32
    by_channel = np.asarray(found.mask).reshape(4, 3, 3)  # [B, C, P]
    np.testing.assert_array_equal(by_channel[0], True)
    np.testing.assert_array_equal(by_channel[1], [[True, True, False]] * 3)
    np.testing.assert_array_equal(by_channel[2], [[True] * 3, [False] * 3, [True] * 3])
    np.testing.assert_array_equal(by_channel[3], False)
    assert params["params"]["positions"]["table"].shape == (3, 16)
    assert params["params"]["channel_positions"]["table"].shape == (3, 16)
    assert params["params"]["samples"]["patches"]["embedding"]["kernel"].shape == (8, 16)  # values and what is missing


def test_what_is_masked_or_missing_changes_nothing(separate):
    module, params, found = separate
    stream = series()
    garbage = np.where(stream.mask[..., None], stream.values, 1e6 * (1 + np.arange(3, dtype=np.float32)))
    garbage[1, 9] = np.inf
    garbage[1, 10] = NAN
    other = apply(module, params, stream.replace(values=garbage))
    np.testing.assert_array_equal(found.pooled, other.pooled)
    np.testing.assert_array_equal(found.x, other.x)


def test_a_missing_channel_is_as_if_its_tokens_were_never_there(separate):
    module, params, _ = separate
    stream = series(missing=False)
    values = stream.values.copy()
    values[0, :, 1] = NAN
    found = apply(module, params, stream.replace(values=values))
    two = jax.tree.map(lambda leaf: leaf, params)
    table = two["params"]["channel_positions"]["table"]
    two["params"]["channel_positions"]["table"] = table[np.array([0, 2])]
    other = apply(module, two, stream.replace(values=values[..., [0, 2]]))
    np.testing.assert_allclose(found.pooled[0], other.pooled[0], atol=1e-6)
    np.testing.assert_allclose(found.x.reshape(4, 3, 3, 16)[0, [0, 2]].reshape(6, 16), other.x[0], atol=1e-6)


def test_a_sample_that_was_not_measured_is_not_a_zero(separate):
    module, params, found = separate
    zeros = series()
    zeros.values[2, 1:3, 0] = 0.0
    other = apply(module, params, zeros)
    assert np.abs(found.x[2, 0] - other.x[2, 0]).max() > 1e-3
    np.testing.assert_array_equal(found.x[0], other.x[0])


@pytest.mark.parametrize(("channels", "dtype"), [("separate", jnp.bfloat16), ("joint", jnp.float32)])
def test_gradients_are_finite_with_noise_and_missing_rows(dtype, channels):
    module = SeriesEncoder(**SIZES, channels=channels, stem=(8,), instance_norm=True, dropout=0.1, dtype=dtype)
    stream, rng = series(), example_keys(jax.random.key(1), 4)
    params = init(module, stream)

    def loss(params, stream):
        found = module.apply(params, stream, rng)
        return jnp.sum(jnp.square(found.pooled.astype(jnp.float32))) + jnp.sum(found.x.astype(jnp.float32))

    gradients = jax.jit(jax.grad(loss))(params, stream)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert np.abs(gradients["params"]["samples"]["stem"]["layer_0"]["kernel"]).max() > 0


def test_joint_tokens_and_the_unrolled_stack():
    settings = {**SIZES, "depth": 2, "channels": "joint", "pool": "first", "posemb": "sincos"}
    module = SeriesEncoder(**settings)
    params, found = run(module, series())
    assert found.x.shape == (4, 4, 16)
    np.testing.assert_array_equal(found.mask[:, 0], [True, True, True, False])
    np.testing.assert_array_equal(found.mask[1], [True, True, True, False])
    assert "positions" not in params["params"] and "channel_positions" not in params["params"]
    blocks = params["params"]["transformer"]["blocks"]
    unrolled = {f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], blocks) for i in range(2)}
    flat = {"params": {**params["params"], "transformer": unrolled}}
    other = apply(SeriesEncoder(**settings, scan=False), flat, series())
    np.testing.assert_allclose(found.x, other.x, atol=1e-5)


def test_infinite_samples_were_not_measured(separate):
    module, params, found = separate
    stream = series()
    values = np.where(np.isnan(stream.values), np.float32(np.inf), stream.values)
    values[2, 1, 0] = -np.inf
    other = apply(module, params, stream.replace(values=values))
    np.testing.assert_array_equal(found.mask, other.mask)
    np.testing.assert_array_equal(found.x, other.x)


def test_mean_and_std_are_of_each_channel(separate):
    module, params, _ = separate
    stream = series()
    mean, std = np.array([1.0, -2.0, 3.0], np.float32), np.array([2.0, 3.0, 0.5], np.float32)
    scaled = SeriesEncoder(**SIZES, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    plain = apply(module, params, stream)
    other = apply(scaled, params, stream.replace(values=stream.values * std + mean))
    np.testing.assert_allclose(plain.x, other.x, atol=1e-5)


def test_instance_norm_counts_measured_samples_alone():
    x = np.random.default_rng(0).normal(3.0, 5.0, (2, 40, 2)).astype(np.float32)
    measured = np.random.default_rng(1).random((2, 40, 2)) < 0.6
    measured[1, :, 1] = False
    found = np.asarray(instance_norm(jnp.where(measured, x, 0), measured))
    kept = x[0, measured[0, :, 1], 1].astype(np.float64)
    expected = (kept - kept.mean()) / kept.std()
    np.testing.assert_allclose(found[0, measured[0, :, 1], 1], expected, atol=1e-5)
    assert (found[~measured] == 0).all()


@pytest.mark.parametrize("unit", [2e-5, 1e-15, 1e15])
def test_instance_norm_does_not_know_a_unit(unit):
    x = np.random.default_rng(0).normal(0.5, 1.0, (2, 40, 3)).astype(np.float32)
    measured = np.random.default_rng(1).random((2, 40, 3)) < 0.6
    x = np.where(measured, x, 0)
    found = np.asarray(instance_norm(jnp.asarray(x * np.float32(unit)), measured))
    np.testing.assert_allclose(found, instance_norm(jnp.asarray(x), measured), atol=1e-5)
    np.testing.assert_allclose(found[0, measured[0, :, 0], 0].std(), 1, atol=1e-5)


def test_instance_norm_leaves_constant_channels_at_zero():
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 64))
    channels = [np.zeros((1, 64)), np.full((1, 64), 0.1), 1e4 * (1 + 1e-7 * noise), 1e-6 * (1 + 1e-7 * noise)]
    x = jnp.asarray(np.stack(channels, axis=-1), jnp.float32)  # [1, 64, 4]
    measured = jnp.ones(x.shape, bool).at[0, 40:, 1].set(False)
    found = instance_norm(x, measured)
    np.testing.assert_array_equal(found[..., :2], 0)
    assert 0 < np.abs(found[..., 2:]).max() < 0.01
    assert np.isfinite(jax.grad(lambda x: jnp.sum(instance_norm(x, measured) * x))(x)).all()


@pytest.mark.parametrize(("length", "stride", "count"), [(12, 4, 3), (13, 4, 4), (3, 4, 1), (12, 2, 5), (11, 3, 4)])
def test_patches_are_windows_with_zeros_after_the_end(length, stride, count):
    x = np.random.default_rng(0).normal(size=(2, length, 3)).astype(np.float32)
    assert num_patches(length, 4, stride) == count
    found = series_patches(jnp.asarray(x), 4, stride)
    padded = np.concatenate([x, np.zeros((2, 8, 3), np.float32)], axis=1)
    expected = np.stack([padded[:, i * stride : i * stride + 4] for i in range(count)], axis=1)
    np.testing.assert_array_equal(found, expected)


def test_log_power_is_scipys_spectrogram():
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    patches = series_patches(jnp.asarray(x)[None, :, None], 16, 8)[0]  # [P, 16, 1]
    scipy_power = signal.spectrogram(x, 1.0, "hann", 16, 8, detrend=False, scaling="density", mode="psd")[2]
    # a one-sided density counts every band but the first and the last twice
    scipy_power[1:-1] /= 2
    np.testing.assert_allclose(log_power(patches)[..., 0].T, np.log(scipy_power + 1e-6), atol=1e-4)


def test_spectrogram_tokens_do_not_know_a_sign():
    module = SeriesEncoder(**SIZES, stride=2, spectrogram=True)
    stream = series()
    params, found = run(module, stream)
    assert found.x.shape == (4, 15, 16)
    assert params["params"]["samples"]["patches"]["embedding"]["kernel"].shape == (3 + 4, 16)
    other = apply(module, params, stream.replace(values=-stream.values))
    np.testing.assert_allclose(found.x, other.x, atol=1e-5)


def test_fourier_features_hold_float32_digits():
    waves = geometric_wavelengths(360.0, 1e-3, 8)
    assert waves[0] == pytest.approx(360) and waves[-1] == pytest.approx(1e-3)
    ratios = np.array(waves[1:]) / np.array(waves[:-1])
    np.testing.assert_allclose(ratios, ratios[0])
    x = np.array([0.0, 45.25, -179.5], np.float32)
    found = fourier_features(jnp.asarray(x), waves)
    angles = 2 * np.pi * x.astype(np.float64)[:, None] / np.array(waves)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(found[:, [0, 1, 8, 9]], expected[:, [0, 1, 8, 9]], atol=1e-5)
    np.testing.assert_allclose(found, expected, atol=0.14)  # 2 pi * 179,500 turns * 2 roundings of 2**-24
    with pytest.raises(UserError, match="longest >= shortest > 0"):
        geometric_wavelengths(1e-3, 360.0, 8)


@pytest.mark.parametrize("channels", ["separate", "joint"])
def test_coordinates_become_fourier_features(channels):
    waves = {"coordinates": (2, 1), "wavelengths": (360.0, 45.0), "num_wavelengths": 4}
    module = SeriesEncoder(**SIZES, channels=channels, **waves)
    params, found = run(module, series())
    assert found.x.shape == (4, 9 if channels == "separate" else 3, 16)
    around, near, plain = series(), series(), series()
    around.values[..., 1:] += 360.0  # every wavelength divides it
    near.values[..., 2] += 20.0
    plain.values[..., 0] += 360.0  # no coordinate
    np.testing.assert_allclose(found.x, apply(module, params, around).x, atol=1e-4)
    changed = [np.abs(found.x - apply(module, params, stream).x)[0].max() for stream in (near, plain)]
    assert min(changed) > 1e-2


def test_wrong_inputs_are_sentences():
    stream, key = series(), jax.random.key(0)
    expected = r"series: expected values \[batch, samples, channels\] and a mask \[batch, samples\], got "
    with pytest.raises(UserError, match=expected + r"\(4, 12\) and \(4, 12\)"):
        SeriesEncoder(**SIZES).init(key, stream.replace(values=stream.values[..., 0]))
    with pytest.raises(UserError, match=expected + r"\(4, 12, 3\) and \(4, 1\)"):
        SeriesEncoder(**SIZES).init(key, stream.replace(mask=stream.mask[:, :1]))
    params = init(SeriesEncoder(**SIZES), stream)
    longer = Stream(np.zeros((1, 20, 3), np.float32), np.ones((1, 20), bool))
    with pytest.raises(UserError, match=r"positions: the learned table is of 3 positions .*, but 5 of .*'sincos'"):
        SeriesEncoder(**SIZES).apply(params, longer)
    for settings, message in [
        ({"mean": (0.0,)}, "mean has 1 values, but there are 3 channels"),
        ({"std": (1.0, 0.0, 1.0)}, "must be positive"),
        ({"channels": "joined"}, "Did you mean 'joint'"),
        ({"coordinates": (3,)}, "numbers below the 3 channels"),
        ({"stride": 5}, "stride=5 would skip samples"),
        ({"spectrogram": True, "stem": (8,)}, "leave stem and coordinates empty"),
    ]:
        with pytest.raises(UserError, match=message):
            SeriesEncoder(**SIZES, **settings).init(key, stream)


@pytest.mark.parametrize(("dilation", "reach"), [(1, 3), (2, 7), (3, 13)])
def test_the_stem_sees_as_far_as_its_dilation_says(dilation, reach):
    """Three layers of three taps: a sample reaches 1 + d + d^2 samples to both sides, and no further."""
    stem = SeriesStem((4, 4, 4), kernel_size=3, dilation=dilation)
    x, mask = jnp.zeros((1, 41, 1)), jnp.ones((1, 41), bool)
    params = stem.init(jax.random.key(0), x, mask)
    before, after = (stem.apply(params, values, mask) for values in (x, x.at[0, 20].set(1.0)))
    moved = np.flatnonzero(np.abs(np.asarray(after - before)).max(axis=(0, 2)) > 1e-7)
    assert moved.min() == 20 - reach and moved.max() == 20 + reach
    if dilation == 3:
        assert len(moved) == 27  # every sample in reach, through some path of taps
