"""A tiny FLAVA with its image tokenizer, and a batch of pairs, images alone and texts alone, for tests."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.types import Batch, Stream
from mmjax.decoders.codes import Codes
from mmjax.decoders.head import Head
from mmjax.decoders.masked import MaskedHead
from mmjax.decoders.patches import PatchDecoder
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.fusion.aligned import Aligned
from mmjax.fusion.coordinated import Coordinated
from mmjax.fusion.early import Early
from mmjax.fusion.quantised import Quantised
from mmjax.layers.dropout import example_keys
from mmjax.layers.projection import Projection
from mmjax.losses.contrastive import SOFTMAX_LOG_SCALE_INIT
from mmjax.model import MultimodalModel
from mmjax.tasks.flava import Flava
from mmjax.tasks.masking import Masking

SIZE, LENGTH, VOCABULARY, CODES, PATCH = 32, 10, 24, 7, 4
TOWER = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32, "scan": False}
MASKING = Masking(PATCH, VOCABULARY, VOCABULARY - 1)


def image_tokenizer(dtype=jnp.float32, patch_size: int = PATCH) -> MultimodalModel:
    """Returns the model of configs/image_codes.py, tiny."""
    tower = {name: size for name, size in TOWER.items() if name != "width"} | {"dtype": dtype}
    return MultimodalModel(
        {"image": ImageEncoder(patch_size, pool="none", dtype=dtype, **TOWER)},
        Quantised(CODES, 16, code_width=4, dtype=dtype),
        {"pixels": PatchDecoder(patch_size, **tower), "codes": Codes()},
    )


def flava_model(dtype=jnp.float32, codes: bool = True) -> MultimodalModel:
    """Returns the model of configs/flava.py, tiny; targets are codes, or pixels."""
    tower = TOWER | {"dtype": dtype, "dropout": 0.1}
    encoders = {
        "image": ImageEncoder(PATCH, mask_token=True, **tower),
        "text": TextEncoder(VOCABULARY, causal=False, pool="first", **tower),
    }
    coordinated = Coordinated({name: Projection(16) for name in encoders}, SOFTMAX_LOG_SCALE_INIT)
    image = {"modality": "image", "size": CODES if codes else 3 * PATCH**2, "most": 2, "dtype": dtype}
    text = {"modality": "text", "size": VOCABULARY, "most": 2, "dtype": dtype}
    decoders = {
        "matching": Head(2, zero_init=True),
        "mim": MaskedHead(**image),
        "mlm": MaskedHead(**text),
        "mmm_image": MaskedHead(**image, in_context=True),
        "mmm_text": MaskedHead(**text, in_context=True),
    }
    teachers = {"codes": image_tokenizer(dtype)} if codes else {}
    return MultimodalModel(encoders, Aligned(coordinated, Early(**tower)), decoders, teachers=teachers)


def flava_task(codes: bool = True, **settings) -> Flava:
    """Returns the task of configs/flava.py, tiny."""
    return Flava(MASKING, codes="codes" if codes else None, **({"block_size": 4} | settings))


def mixed_batch(order=range(SIZE), seed: int = 0) -> Batch:
    """Returns random streams: in every four rows two pairs, an image alone and a text alone; row 4 is padding.

    A text goes with its image: both are of one of eight kinds.
    """
    rng, order = np.random.default_rng(seed), np.asarray(order)
    kind = rng.integers(0, 8, SIZE)
    pixels = rng.integers(0, 60, (SIZE, 8, 8, 3)) + 24 * kind[:, None, None, None]
    ids = rng.integers(3, 5, (SIZE, LENGTH))
    ids[:, 0], ids[:, 1:4] = 1, 5 + 2 * kind[:, None]
    mask = np.arange(LENGTH) < rng.integers(5, LENGTH + 1, (SIZE, 1))
    ids[np.arange(SIZE), mask.sum(axis=1) - 1] = 2
    row = np.arange(SIZE)
    streams = {
        "image": Stream(pixels.astype(np.uint8), (row % 4 != 3)[:, None]),
        "text": Stream(np.where(mask, ids, 0).astype(np.int32), mask & (row % 4 != 2)[:, None]),
    }
    batch = Batch(streams, row.astype(np.int32), row != 4)
    return jax.tree.map(lambda x: x[order], batch)


def loss_of(model, task, params, batch, noise: bool = True, keys=None):
    """Returns the TaskLoss; keys [B] are those of rows 0, 1, ... where they are not given."""
    keys = (example_keys(jax.random.key(0), len(batch.mask)) if keys is None else keys) if noise else None
    apply = lambda params, streams, rng: model.apply({"params": params}, streams, rng)  # noqa: E731
    return task.loss(*task.embed(apply, params, batch, keys), batch)
