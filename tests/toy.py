"""A toy supervised model of two or three vector modalities, for tests of tasks, balance and evaluation."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmjax.core.types import Batch, Outputs, Stream, Tokens
from mmjax.decoders.head import Head
from mmjax.decoders.probes import Probes
from mmjax.layers.pooling import summary
from mmjax.model import MultimodalModel

NAMES = ("a", "b")


class Linear(nn.Module):
    """values [B, C] -> one token."""

    width: int = 4

    @nn.compact
    def __call__(self, stream, rng=None):
        x = nn.Dense(self.width, name="linear")(stream.values)[:, None]  # [B, 1, D]
        return Tokens(x, stream.mask)


class Sum(nn.Module):
    """The sum of all modalities, in the order of their names."""

    @nn.compact
    def __call__(self, tokens, rng=None):
        vectors = [summary(tokens[name]) for name in sorted(tokens)]
        mask = jnp.stack([tokens[name].present for name in sorted(tokens)], axis=1)
        x = jnp.stack(vectors, axis=1)  # [B, M, D]
        return Outputs(fused=Tokens(x, mask, x.sum(axis=1)))


def toy_model(classes: int = 3, names=NAMES, **settings) -> MultimodalModel:
    """Returns the model with a head 'label', a head 'score' and probes."""
    decoders = {"label": Head(classes), "score": Head(1, "values"), "probe": Probes(classes)}
    return MultimodalModel({name: Linear() for name in names}, Sum(), **({"decoders": decoders} | settings))


def toy_batch(size: int = 12, classes: int = 3, names=NAMES, seed: int = 0) -> Batch:
    """Returns random vectors with labels and scores; row 0 lacks the first modality, row 1 is padding."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, size).astype(np.int32)
    streams = {}
    for name in names:
        values = rng.normal(size=(size, 5)).astype(np.float32)
        values[:, :classes] += 2 * np.eye(classes, dtype=np.float32)[label]
        streams[name] = Stream(values, np.ones((size, 1), bool))
    streams[names[0]].mask[0] = False
    score = (label + 0.1 * rng.normal(size=size)).astype(np.float32)
    mask = np.arange(size) != 1
    return Batch(streams, np.arange(size, dtype=np.int32), mask, {"label": label, "score": score})
