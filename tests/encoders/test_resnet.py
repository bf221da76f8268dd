"""The ResNet: published parameter counts, values against convolutions in numpy, scanning, missing pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.trees import flatten
from mmjax.core.types import Stream
from mmjax.encoders.resnet import ResNetEncoder, resnet_sizes

TINY = {"stage_sizes": (1, 3), "width": 8, "num_groups": 4}
RNG = np.random.default_rng(0)
PIXELS = Stream(RNG.integers(0, 256, (2, 20, 12, 3), dtype=np.uint8), np.array([[True], [False]]))


def shapes(module, side=224):
    stream = Stream(jax.ShapeDtypeStruct((1, side, side, 3), np.uint8), jax.ShapeDtypeStruct((1, 1), np.bool_))
    params = jax.eval_shape(module.init, jax.random.key(0), stream)
    return params, jax.eval_shape(module.apply, params, stream)


def varied(module, stream):
    """Returns parameters none of which is 0 or 1, so that each counts."""
    params, rng = jax.eval_shape(module.init, jax.random.key(0), stream), np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0.3, 0.3, leaf.shape).astype(np.float32), params)


@pytest.mark.parametrize(
    ("variant", "count"),
    [("18", 11_176_512), ("50", 23_508_032), ("101", 42_500_160), ("152", 58_143_808), ("50x3", 211_197_120)],
)
def test_parameter_counts_are_those_published(variant, count):
    params, found = shapes(ResNetEncoder(**resnet_sizes(variant)))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count
    width = 512 if variant == "18" else 6144 if variant == "50x3" else 2048
    assert found.x.shape == (1, 49, width) and found.pooled.shape == (1, width)


def test_the_small_stem_and_odd_sides():
    sizes = resnet_sizes("18")
    assert shapes(ResNetEncoder(**sizes, stem="small"), 32)[1].x.shape == (1, 16, 512)
    assert shapes(ResNetEncoder(**sizes), 33)[1].x.shape == (1, 4, 512)
    assert shapes(ResNetEncoder(**sizes, pool="none"), 1)[1].pooled is None


def conv(x, kernel, strides):
    """A padded convolution of x [H, W, C] in float64 by its definition."""
    kh, kw, _, out = kernel.shape
    padded = np.pad(x, [((kh - 1) // 2,) * 2, ((kw - 1) // 2,) * 2, (0, 0)])
    rows = (padded.shape[0] - kh) // strides + 1
    columns = (padded.shape[1] - kw) // strides + 1
    y = np.zeros((rows, columns, out))
    for i in range(rows):
        for j in range(columns):
            part = padded[i * strides : i * strides + kh, j * strides : j * strides + kw]
            y[i, j] = np.einsum("hwc,hwco->o", part, kernel)
    return y


def conv_norm(params, x, strides=1, standardise=False, relu=True, groups=4):
    kernel = params["conv"]["kernel"]
    if standardise:
        kernel = (kernel - kernel.mean(axis=(0, 1, 2))) / kernel.std(axis=(0, 1, 2))
    y = conv(x, kernel, strides)
    grouped = y.reshape(-1, groups, y.shape[-1] // groups)
    grouped = (grouped - grouped.mean(axis=(0, 2), keepdims=True)) / np.sqrt(
        grouped.var(axis=(0, 2), keepdims=True) + 1e-5
    )
    y = grouped.reshape(y.shape) * params["norm"]["scale"] + params["norm"]["bias"]
    return np.maximum(y, 0) if relu else y


def block(params, x, strides, **options):
    y = conv_norm(params["conv_1"], x, **options)
    y = conv_norm(params["conv_2"], y, strides, **options)
    y = conv_norm(params["conv_3"], y, relu=False, **options)
    if "shortcut" in params:
        x = conv_norm(params["shortcut"], x, strides, relu=False, **options)
    return np.maximum(x + y, 0)


@pytest.mark.parametrize("standardise", [False, True])
def test_values_are_those_of_the_definition(standardise):
    module = ResNetEncoder(**TINY, weight_standardisation=standardise)
    params = varied(module, PIXELS)
    found = jax.jit(module.apply)(params, PIXELS)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    options = {"standardise": standardise}
    x = (PIXELS.values[0] / 255 - np.array(module.mean)) / np.array(module.std)
    x = np.pad(conv_norm(p["stem"], x, 2, **options), [(1, 1), (1, 1), (0, 0)])  # after a ReLU, 0 is never the greatest
    x = np.array([[x[i : i + 3, j : j + 3].max(axis=(0, 1)) for j in range(0, 6, 2)] for i in range(0, 10, 2)])
    x = block(p["stage_1_first_0"], x, 1, **options)
    x = block(p["stage_2_first_0"], x, 2, **options)
    for number in range(2):
        x = block(jax.tree.map(lambda leaf: leaf[number], p["stage_2"]), x, 1, **options)  # noqa: B023
    expected = x.reshape(-1, x.shape[-1])
    np.testing.assert_allclose(found.x[0], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.pooled[0], expected.mean(axis=0), rtol=1e-4, atol=1e-3)
    assert found.mask.tolist() == [[True] * 6, [False] * 6]


def test_scanned_is_unrolled_and_no_picture_counts_for_another():
    module, plain = ResNetEncoder(**TINY), ResNetEncoder(**TINY, scan=False)
    params = varied(module, PIXELS)
    unrolled = {name: value for name, value in params["params"].items() if name != "stage_2"}
    for number in range(2):
        unrolled[f"stage_2_{number}"] = jax.tree.map(lambda leaf: leaf[number], params["params"]["stage_2"])  # noqa: B023
    apply = jax.jit(module.apply)
    found = apply(params, PIXELS)
    same = jax.jit(plain.apply)({"params": unrolled}, PIXELS)
    np.testing.assert_allclose(found.x, same.x, rtol=1e-5, atol=1e-4)
    changed = PIXELS.replace(values=np.stack([PIXELS.values[0], 255 - PIXELS.values[1]]))
    np.testing.assert_array_equal(apply(params, changed).x[0], found.x[0])


def test_bfloat16_and_missing_pictures_give_finite_gradients():
    sizes = {"stage_sizes": (2,), "bottleneck": False, "stem": "small", "width": 8, "num_groups": 4}
    module = ResNetEncoder(**sizes, dtype=jnp.bfloat16, remat="core", weight_standardisation=True)
    params = varied(module, PIXELS)

    def loss(params):
        tokens = module.apply(params, PIXELS.replace(values=PIXELS.values * 0))
        assert tokens.x.dtype == jnp.bfloat16
        return jnp.sum(jnp.square(tokens.pooled.astype(jnp.float32)))

    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(grads))
    assert all("conv" in name or "norm" in name for name in flatten(grads))


def test_wrong_inputs_are_sentences():
    with pytest.raises(UserError, match=r"image: expected values \[batch, height, width, 3\], got \(2, 6\)"):
        ResNetEncoder(**TINY).init(jax.random.key(0), Stream(np.zeros((2, 6)), np.ones((2, 1), bool)))
    with pytest.raises(UserError, match="the width 8 is not a multiple of num_groups=3"):
        ResNetEncoder((1,), width=8, num_groups=3).init(jax.random.key(0), PIXELS)
    with pytest.raises(UserError, match="pool: 'first' is unknown"):
        ResNetEncoder(**TINY, pool="first").init(jax.random.key(0), PIXELS)
    with pytest.raises(UserError, match=r"'51' is unknown\. Did you mean"):
        resnet_sizes("51")
    with pytest.raises(UserError, match="LAYERSxWIDTH"):
        resnet_sizes("50xl")
