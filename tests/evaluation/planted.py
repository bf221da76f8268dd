"""A model that has learned a planted rule: the class is the colour of one patch of the picture; the text is noise.

Class 2 has no such patch: else one of two colours could be told by the absence of the other.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmjax.core.types import Stream, Tokens
from mmjax.decoders.head import Head
from mmjax.fusion.early import Early
from mmjax.layers.patchify import PatchEmbedding
from mmjax.model import MultimodalModel
from tests.quick import jit

TOWER = {"width": 24, "depth": 1, "num_heads": 2, "mlp_dim": 48, "scan": False}
PATCHES = 16
COLOURS = np.array([[230, 30, 30], [30, 30, 230]], np.uint8)


def planted(size, seed, missing=0.0):
    """Returns streams, the class [B] and the number of the patch [B] that shows it; modalities miss by chance."""
    rng = np.random.default_rng(seed)
    label, place = rng.integers(0, 3, size), rng.integers(0, PATCHES, size)
    pixels = rng.integers(100, 156, (size, 16, 16, 3)).astype(np.uint8)
    for row, (y, x) in enumerate(zip(place // 4 * 4, place % 4 * 4, strict=True)):
        if label[row] < 2:
            pixels[row, y : y + 4, x : x + 4] = COLOURS[label[row]]
    text = rng.integers(1, 10, (size, 4)).astype(np.int32)
    there = rng.random((2, size, 1)) >= missing
    return {"image": Stream(pixels, there[0]), "text": Stream(text, there[1] & np.ones(4, bool))}, label, place


class Patches(nn.Module):
    """Pixels -> a token for each patch, which knows of no other: what is found in one is of that place."""

    @nn.compact
    def __call__(self, stream, rng=None):
        pixels = stream.values.astype(jnp.float32) / 127.5 - 1
        x = PatchEmbedding(4, 24, True, jnp.float32, name="patches")(pixels)
        return Tokens(x, jnp.repeat(stream.mask, x.shape[1], axis=1))


class Words(nn.Module):
    """Token ids -> a token for each."""

    @nn.compact
    def __call__(self, stream, rng=None):
        return Tokens(nn.Embed(10, 24, name="vocabulary")(stream.values), stream.mask)


MODEL = MultimodalModel({"image": Patches(), "text": Words()}, Early(pool="first", **TOWER), {"label": Head(3)})


@functools.lru_cache
def learned():
    """Returns the parameters after 500 steps, in which either modality may be missing; accuracy is above 0.95."""
    streams, _, _ = planted(64, 0)
    params = jit(MODEL.init)(jax.random.key(0), streams)["params"]
    steps = 500
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, steps))

    @jit
    def step(params, state, streams, label):
        def loss(params):
            logits = MODEL.apply({"params": params}, streams).predictions["label"]
            values = optax.losses.softmax_cross_entropy_with_integer_labels(logits, label)
            return values.mean(), values.mean(where=streams["image"].mask[:, 0])

        (_, value), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for number in range(steps):
        streams, label, _ = planted(64, number + 1, missing=0.2)
        params, state, loss = step(params, state, streams, jnp.asarray(label))
    assert loss < 0.05, f"not learned: {loss}"
    return params


@jit
def answers(params, streams):
    """Returns the predictions, compiled once."""
    return MODEL.apply({"params": params}, streams).predictions
