"""Small cases for every fusion: tokens of three modalities in every subset, parameters, one traced function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.types import Tokens
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.co_attention import CoAttention
from mmjax.fusion.cross_modal import CrossModal
from mmjax.fusion.early import Early
from mmjax.fusion.gated import Gated
from mmjax.fusion.late import Late
from mmjax.fusion.low_rank import LowRankTensor
from mmjax.fusion.mixture import SparseMixture
from tests.quick import jit

WIDTH = 8
BLOCKS = {"width": WIDTH, "depth": 1, "num_heads": 2, "mlp_dim": 12, "dropout": 0.2, "drop_path": 0.1}

FUSIONS = {
    "early": functools.partial(Early, **BLOCKS, scan=False),
    "co_attention": functools.partial(CoAttention, **BLOCKS, scan=False),
    "bottleneck": functools.partial(Bottleneck, **BLOCKS | {"depth": 2}, num_bottlenecks=2, fusion_layer=1),
    "cross_modal": functools.partial(CrossModal, **BLOCKS, scan=False),
    "late": functools.partial(Late, WIDTH, weighting="learned"),
    "gated": functools.partial(Gated, WIDTH),
    "gated_unit": functools.partial(Gated, WIDTH, gate="sigmoid", per_channel=True),
    "mixture": functools.partial(SparseMixture, WIDTH, mlp_dim=12, jitter=0.1),
    "mixture_of_tokens": functools.partial(SparseMixture, WIDTH, mlp_dim=12, top_k=1, items="tokens", jitter=0.1),
    "low_rank": functools.partial(LowRankTensor, WIDTH, rank=3),
}

NOISY = ("early", "co_attention", "bottleneck", "cross_modal", "mixture", "mixture_of_tokens")

SHAPES = {"audio": (2, 8), "image": (3, 6), "text": (5, 10)}
"""Modality -> (number of tokens, their width); the image alone brings a pooled vector."""

EVERY_SUBSET = np.arange(8)[:, None] >> np.arange(3) & 1 == 1
"""[8, 3] bool: row 0 has nothing, row 7 has all."""


def make_tokens(present, seed=0, dtype=jnp.float32, shapes=SHAPES):
    """Returns tokens of len(present) examples, of which example b has modality m where present[b, m]."""
    rng = np.random.default_rng(seed)
    tokens = {}
    for place, (name, (count, width)) in enumerate(shapes.items()):
        x = rng.normal(size=(len(present), count, width)).astype(np.float32)
        lengths = rng.integers(1, count + 1, size=len(present))
        mask = (np.arange(count) < lengths[:, None]) & present[:, [place]]
        pooled = rng.normal(size=(len(present), width)).astype(np.float32) if name == "image" else None
        tokens[name] = Tokens(
            jnp.asarray(x, dtype), jnp.asarray(mask), None if pooled is None else jnp.asarray(pooled, dtype)
        )
    return tokens


def random_params(module, tokens, seed=1):
    """Returns parameters that are all random, biases and scales too, without compiling the initialisation."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), shapes)


class Case:
    """A fusion with parameters; `run` is traced once for all subsets, positions and contents."""

    def __init__(self, name, dtype):
        self.module, self.traces = FUSIONS[name](dtype=dtype), 0
        self.params = random_params(self.module, make_tokens(EVERY_SUBSET, dtype=dtype))
        self.run = jit(self._run)
        self.forward = jit(lambda params, tokens, rng: self.module.apply({"params": params}, tokens, rng))

    def _run(self, params, values, masks, weight):
        """Returns Outputs and the gradients of sum(weight * pooled) + penalties for params and values."""
        self.traces += 1

        def loss(params, values):
            tokens = {name: Tokens(x, masks[name], pooled) for name, (x, pooled) in values.items()}
            outputs = self.module.apply({"params": params}, tokens)
            penalties = sum(jnp.sum(value) for value in outputs.penalties.values())
            return jnp.sum(weight * outputs.fused.pooled) + penalties, outputs

        (_, outputs), gradients = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, values)
        return outputs, gradients

    def __call__(self, tokens):
        """Returns what `run` does for tokens."""
        weight = np.random.default_rng(5).normal(size=(len(tokens["image"].x), WIDTH)).astype(np.float32)
        values = {name: (stream.x, stream.pooled) for name, stream in tokens.items()}
        return self.run(self.params, values, {name: stream.mask for name, stream in tokens.items()}, weight)


@functools.lru_cache
def case(name, dtype=jnp.float32):
    """Returns the case of that name, compiled at most once in a session."""
    return Case(name, dtype)


def assert_same(found, expected, atol=1e-5, rows=None):
    """Asserts that two Outputs agree (found[rows] where given): vectors, weights, penalties and unmasked tokens."""
    take = (lambda x: np.asarray(x)) if rows is None else (lambda x: np.asarray(x)[rows])
    np.testing.assert_allclose(take(found.fused.pooled), expected.fused.pooled, atol=atol)
    for name in set(found.weights) | set(expected.weights):  # a modality that is not given weighs nothing
        left = take(found.weights[name]) if name in found.weights else 0.0
        np.testing.assert_allclose(left, expected.weights.get(name, np.zeros(1)), atol=atol, err_msg=name)
    assert set(found.penalties) == set(expected.penalties)
    for name, value in expected.penalties.items():
        np.testing.assert_allclose(take(found.penalties[name]), value, atol=atol, err_msg=name)
    left, right = take(found.fused.mask), np.asarray(expected.fused.mask)
    for b in range(len(right)):
        np.testing.assert_allclose(take(found.fused.x)[b][left[b]], expected.fused.x[b][right[b]], atol=atol)
