"""A model that has learned a planted rule: the class is the colour of one patch of the picture; the text is noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.core.types import Stream
from mmjax.decoders.head import Head
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.fusion.early import Early
from mmjax.model import MultimodalModel
from tests.quick import jit

TOWER = {"width": 24, "depth": 1, "num_heads": 2, "mlp_dim": 48, "scan": False}
PATCHES = 16
COLOURS = np.array([[230, 30, 30], [30, 30, 230]], np.uint8)


def planted(size, seed):
    """Returns streams, the class [B] and the number of the patch [B] that shows it."""
    rng = np.random.default_rng(seed)
    label, place = rng.integers(0, 2, size), rng.integers(0, PATCHES, size)
    pixels = rng.integers(100, 156, (size, 16, 16, 3)).astype(np.uint8)
    for row, (y, x) in enumerate(zip(place // 4 * 4, place % 4 * 4, strict=True)):
        pixels[row, y : y + 4, x : x + 4] = COLOURS[label[row]]
    text = rng.integers(1, 10, (size, 4)).astype(np.int32)
    streams = {"image": Stream(pixels, np.ones((size, 1), bool)), "text": Stream(text, np.ones((size, 4), bool))}
    return streams, label, place


MODEL = MultimodalModel(
    {
        "image": ImageEncoder(patch_size=4, pool="none", **TOWER),
        "text": TextEncoder(vocab_size=10, causal=False, pool="none", **TOWER),
    },
    Early(pool="first", **TOWER),
    {"label": Head(2)},
)


@functools.lru_cache
def learned():
    """Returns the parameters after some hundred steps; accuracy is above 0.95."""
    streams, _, _ = planted(64, 0)
    params = jit(MODEL.init)(jax.random.key(0), streams)["params"]
    optimizer = optax.adam(3e-3)

    @jit
    def step(params, state, streams, label):
        def loss(params):
            logits = MODEL.apply({"params": params}, streams).predictions["label"]
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for number in range(1000):
        streams, label, _ = planted(64, number + 1)
        params, state, loss = step(params, state, streams, jnp.asarray(label))
        if loss < 0.02:
            break
    assert loss < 0.1, f"not learned: {loss} after {number} steps"
    return params


@jit
def answers(params, streams):
    """Returns the predictions, compiled once."""
    return MODEL.apply({"params": params}, streams).predictions
