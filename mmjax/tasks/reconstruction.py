"""Reconstruction of images through discrete codes: the training of an image tokenizer."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, one_of
from mmjax.core.types import Array, Batch
from mmjax.layers.patchify import patches_of
from mmjax.tasks.task import Apply, TaskLoss


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Mean squared error of decoded pixels in [0, 1], with the penalties of the codebook and for leaving codes unused.

    The latter is entropy (mean H(p) - H(mean p)), means over all tokens of the batch, p the probabilities of the codes:
    each token is to be sure of its code, and all together are to need many.

    Metrics: how many codes of the book a batch uses, as a share, and their perplexity exp(-sum p ln p), where p is the
    share of the batch's tokens that a code has. An example without the image counts for nothing.

    Attributes:
      modality: of the images, uint8 [B, H, W, 3].
      patch_size: P of the decoder.
      codebook_size: K.
      entropy: weight of that.
      head: decoder that gives pixels [B, N, P * P * 3].

    References:
      van den Oord et al., Neural Discrete Representation Learning, 2017, equation 3; Yu et al., Language Model
      Beats Diffusion: Tokenizer is Key to Visual Generation (MAGVIT-v2), 2024, equation 5 (entropy).
    """

    modality: str = "image"
    patch_size: int = 16
    codebook_size: int = 8192
    entropy: float = 0.05
    head: str = "pixels"

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Returns the error [B], how often an example has each code [B, K], their probabilities, and the penalties."""
        one_of(self.modality, batch.streams, "Reconstruction.modality")
        stream = batch.streams[self.modality]
        outputs = apply(params, {self.modality: stream}, rng)
        one_of(self.head, outputs.predictions, "Reconstruction.head")
        one_of(self.modality, outputs.codes, "Reconstruction: the codes of the modality")
        error = squared_error(outputs.predictions[self.head], stream.values, self.patch_size)
        codes = outputs.codes[self.modality]
        soft = {"shares": codes.shares, "entropy": codes.entropy}
        counts = _counts(codes.index, self.codebook_size)
        return {"error": error, "counts": counts, "penalties": outputs.penalties} | soft, ()

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the error of every image."""
        mask = batch.mask & batch.streams[self.modality].present  # [B]
        counts, soft = (jnp.where(mask[:, None], by_example[n], 0.0).sum(axis=0) for n in ("counts", "shares"))  # [K]
        unused = self.entropy * (by_example["entropy"] - _entropy(soft))  # [B], H(mean p) being the same for all
        metrics = {
            "mean_squared_error": mean_where(by_example["error"], mask),
            "codes_used": jnp.mean((counts > 0).astype(jnp.float32)),
            "perplexity": jnp.exp(_entropy(counts)),
        }
        return TaskLoss(by_example["error"], mask, metrics, extra=unused).penalised(by_example["penalties"])


def squared_error(predicted: jax.Array, images: jax.Array, patch_size: int) -> jax.Array:
    """Returns the mean squared error [B] float32 of patches [B, N, P * P * 3] in [0, 1] from uint8 [B, H, W, 3].

    Raises:
      UserError: the images are cut into other patches than were predicted.
    """
    pixels = patches_of(images, patch_size).astype(jnp.float32) / 255.0  # [B, N, P * P * 3]
    if predicted.shape != pixels.shape:
        raise UserError(
            f"Reconstruction: the decoder gives patches {list(predicted.shape)}, but patch_size={patch_size} cuts the "
            f"images into {list(pixels.shape)}."
        )
    return jnp.square(predicted.astype(jnp.float32) - pixels).mean(axis=(1, 2))


def _entropy(counts: jax.Array) -> jax.Array:
    """Returns the entropy [] in nats of the distribution that counts [K] are in proportion to."""
    shares = counts / jnp.maximum(counts.sum(), 1e-12)
    return -jnp.sum(shares * jnp.log(jnp.maximum(shares, 1e-12)))


def _counts(codes: jax.Array, size: int) -> jax.Array:
    """Returns [B, K] float32, how often each example has each code."""
    rows = jnp.arange(codes.shape[0])[:, None]
    return jnp.zeros((codes.shape[0], size), jnp.float32).at[rows, codes].add(1.0)
