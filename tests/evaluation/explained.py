"""Small whole models of an image and a text for tests of explanations: every fusion, and two towers with a cosine."""

import flax.linen as nn
import jax
import numpy as np

from mmjax.core.types import Stream
from mmjax.decoders.head import Head
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.fusion.coordinated import Coordinated
from mmjax.model import MultimodalModel
from tests.fusion.cases import FUSIONS

TOWER = {"width": 8, "depth": 2, "num_heads": 2, "mlp_dim": 12}
PRESENT = np.array([[True, True], [True, False], [False, True], [False, False]])
"""[4, 2] bool: which examples have an image, a text."""


def streams(present=PRESENT, seed=0):
    """Returns pictures of 2 x 2 patches and texts of 3 to 5 tokens."""
    rng = np.random.default_rng(seed)
    size = len(present)
    lengths = rng.integers(3, 6, size)
    return {
        "image": Stream(rng.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8), present[:, :1]),
        "text": Stream(
            rng.integers(1, 20, (size, 5)).astype(np.int32), (np.arange(5) < lengths[:, None]) & present[:, 1:]
        ),
    }


def encoders(image="first", text="mean", **more):
    """Returns the two encoders; their pools are arguments."""
    return {
        "image": ImageEncoder(patch_size=4, pool=image, **TOWER | more),
        "text": TextEncoder(vocab_size=20, causal=False, pool=text, **TOWER | more),
    }


def fused(name, **more):
    """Returns a model with a fusion of tests.fusion.cases and a head of 3 classes."""
    return MultimodalModel(encoders(**more), FUSIONS[name](), {"label": Head(3)})


def towers(**more):
    """Returns a model of two towers in one space."""
    projections = {"image": nn.Dense(6), "text": nn.Dense(6)}
    return MultimodalModel(encoders(**more), Coordinated(projections, init_logit_scale=1.0))


def params_of(model, given, seed=1):
    """Returns random parameters, biases and scales too, without compiling the initialisation."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), given)["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(leaf.dtype), shapes)
