"""Losses over the hidden tokens of each example: cross-entropy of classes, squared error of vectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError


def masked_cross_entropy(logits: jax.Array, targets: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean over the hidden tokens of -log softmax(logits)[target], and how many are right.

    With equal logits it is ln K.

    Args:
      logits: [B, M, K] of M tokens an example.
      targets: [B, M] int classes below K.
      mask: [B, M] bool; a False token counts for nothing, whatever its logits and target hold.

    Returns:
      (loss, accuracy), each [B] float32; 0 for an example without a hidden token.

    Raises:
      UserError: shapes that do not fit together.

    References:
      Devlin et al., BERT, 2019, section 3.1; Bao et al., BEiT, 2022, equation 3.
    """
    _check(logits, mask, targets.shape, logits.shape[:2])
    logits = jnp.where(mask[..., None], logits.astype(jnp.float32), 0.0)
    targets = jnp.where(mask, targets, 0)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)  # [B, M]
    return mean_where(losses, mask, axis=1), mean_where(logits.argmax(axis=-1) == targets, mask, axis=1)


def masked_squared_error(predicted: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the hidden tokens, and over their P values, of the squared error.

    Args:
      predicted: [B, M, P].
      targets: [B, M, P].
      mask: [B, M] bool; a False token counts for nothing, whatever it holds.

    Returns:
      [B] float32; 0 for an example without a hidden token.

    Raises:
      UserError: shapes that do not fit together.

    References:
      He et al., Masked Autoencoders Are Scalable Vision Learners, 2022, section 3.
    """
    _check(predicted, mask, targets.shape, predicted.shape)
    error = jnp.where(mask[..., None], predicted.astype(jnp.float32) - targets.astype(jnp.float32), 0.0)
    return mean_where(jnp.square(error).mean(axis=-1), mask, axis=1)


def normalised_patches(patches: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Returns patches [B, N, P], each with mean 0 and variance 1 (0 where it is plain), float32.

    References:
      He et al. 2022, section 4.1 (reconstruction target).
    """
    patches = patches.astype(jnp.float32)
    centred = patches - patches.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + epsilon)


def _check(predicted: jax.Array, mask: jax.Array, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if predicted.ndim != 3 or mask.shape != predicted.shape[:2] or found != expected:
        raise UserError(
            f"masked loss: predictions {list(predicted.shape)}, targets {list(found)} and mask {list(mask.shape)} do "
            "not fit; expected [B, M, K] with [B, M] classes or [B, M, K] values, and [B, M]."
        )
