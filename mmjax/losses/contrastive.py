"""Contrastive losses between two sets of embeddings, softmax and sigmoid, in their plain dense form.

The N x N logits are held in memory; `mmjax.losses.ring` has the same two losses without them.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError

SOFTMAX_LOG_SCALE_INIT = math.log(1 / 0.07)
"""CLIP (Radford et al. 2021, section 2.5): the learned log temperature starts at log(1 / 0.07)."""

SOFTMAX_LOG_SCALE_MAX = math.log(100)
"""CLIP (section 2.5): logits are never scaled by more than 100, so the log temperature is clamped at log 100."""

SIGMOID_LOG_SCALE_INIT = math.log(10)
"""SigLIP (Zhai et al. 2023, section 3.2): the learned log temperature t' starts at log 10; no clamp is published."""

SIGMOID_BIAS_INIT = -10.0
"""SigLIP (section 3.2): the learned bias starts at -10, near the log odds of a positive in a large batch."""


def softmax_contrastive(
    a: jax.Array,
    b: jax.Array,
    *,
    logit_scale: jax.Array | float,
    group: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Symmetric InfoNCE, per example: half a classification among the b, half one among the a.

    With logits s_ij = logit_scale * <a_i, b_j> and P(i) the examples of i's group (i among them),

      loss_i = 1/2 (log sum_j exp s_ij - mean_{j in P(i)} s_ij) + 1/2 (log sum_j exp s_ji - mean_{j in P(i)} s_ji).

    Equal logits give ln N for N unmasked examples.

    Args:
      a: [N, D] embeddings of one modality, float32 or bfloat16; unit vectors for cosine logits.
      b: [N, D] embeddings of the other; b[i] is of the same example as a[i].
      logit_scale: [] multiplicative temperature (already exponentiated and clamped).
      group: [N] int; examples with the same number are positives of one another. None: each is alone.
      mask: [N] bool; a False row is in nobody's sum and its loss is 0, whatever its embeddings hold. None: all True.

    Returns:
      [N] float32 loss per example.

    Raises:
      UserError: shapes or dtypes that do not fit together.

    References:
      Radford et al. 2021 (CLIP, figure 3), https://arxiv.org/abs/2103.00020;
      several positives: Yang et al. 2022 (UniCL, equations 2-4), https://arxiv.org/abs/2204.03610
    """
    a, b, group, mask = prepare(a, b, logit_scale, 0.0, group, mask)
    valid = mask[:, None] & mask[None, :]  # [N, N]
    positive = valid & (group[:, None] == group[None, :])  # [N, N]
    logits = jnp.where(valid, logit_scale * matmul(a, b.T), jnp.finfo(jnp.float32).min)  # [N, N]
    share = positive / jnp.maximum(jnp.sum(positive, 1, jnp.float32, keepdims=True), 1)  # [N, N] symmetric
    rows = jax.nn.logsumexp(logits, axis=1) - jnp.sum(share * logits, axis=1)  # [N]
    columns = jax.nn.logsumexp(logits, axis=0) - jnp.sum(share * logits, axis=0)  # [N]
    return jnp.where(mask, (rows + columns) / 2, 0.0)


def sigmoid_contrastive(
    a: jax.Array,
    b: jax.Array,
    *,
    logit_scale: jax.Array | float,
    logit_bias: jax.Array | float,
    group: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Pairwise sigmoid loss, per example: each pair (i, j) is one binary decision.

    With logits s_ij = logit_scale * <a_i, b_j> + logit_bias and z_ij = 1 where i and j are of one group, else -1,

      loss_i = - sum_j log sigmoid(z_ij s_ij).

    At cosine 0, scale 10 and bias -10 the mean is 10.0465 for N = 1024.

    Args:
      a: [N, D] embeddings of one modality, float32 or bfloat16; unit vectors for cosine logits.
      b: [N, D] embeddings of the other; b[i] is of the same example as a[i].
      logit_scale: [] multiplicative temperature (already exponentiated).
      logit_bias: [] added to every logit.
      group: [N] int; examples with the same number are positives of one another. None: each is alone.
      mask: [N] bool; a False row is in nobody's sum and its loss is 0, whatever its embeddings hold. None: all True.

    Returns:
      [N] float32 loss per example: row sums, so that their mean over the N rows is the published loss.

    Raises:
      UserError: shapes or dtypes that do not fit together.

    References:
      Zhai et al. 2023 (SigLIP, equation 1 and algorithm 1), https://arxiv.org/abs/2303.15343
    """
    a, b, group, mask = prepare(a, b, logit_scale, logit_bias, group, mask)
    valid = mask[:, None] & mask[None, :]  # [N, N]
    sign = jnp.where(group[:, None] == group[None, :], 1.0, -1.0)  # [N, N]
    logits = logit_scale * matmul(a, b.T) + logit_bias  # [N, N]
    return jnp.sum(jnp.where(valid, jax.nn.softplus(-sign * logits), 0.0), axis=1)  # [N]


def matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns x @ y in float32, also where matmuls default to less and where x and y are bfloat16."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def prepare(
    a: jax.Array,
    b: jax.Array,
    logit_scale: jax.Array | float,
    logit_bias: jax.Array | float,
    group: jax.Array | None,
    mask: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Checks the inputs of a contrastive loss and fills the optional ones in.

    Returns:
      a and b with masked rows set to 0 (so that nothing in them reaches a value or a gradient), group, mask.

    Raises:
      UserError: shapes or dtypes that do not fit together.
    """
    shape, other = jnp.shape(a), jnp.shape(b)
    if len(shape) != 2 or other != shape:
        raise UserError(f"contrastive loss: a and b must both be [N, D], but are {list(shape)} and {list(other)}.")
    for name, value in (("a", a), ("b", b)):
        if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            kind = jnp.result_type(value)
            raise UserError(f"contrastive loss: {name} must hold floating-point embeddings, but is of {kind}.")
    for name, value in (("logit_scale", logit_scale), ("logit_bias", logit_bias)):
        if jnp.shape(value) != ():
            raise UserError(f"contrastive loss: {name} must be a scalar, but has the shape {list(jnp.shape(value))}.")
    group = jnp.arange(shape[0], dtype=jnp.int32) if group is None else jnp.asarray(group)
    mask = jnp.ones(shape[0], bool) if mask is None else jnp.asarray(mask)
    for name, value, kind in (("group", group, jnp.integer), ("mask", mask, jnp.bool_)):
        if value.shape != shape[:1] or not jnp.issubdtype(value.dtype, kind):
            raise UserError(
                f"contrastive loss: {name} must be [N] = [{shape[0]}] of {kind.__name__}, "
                f"but is {list(value.shape)} of {value.dtype}."
            )
    a, b = (jnp.where(mask[:, None], x, jnp.zeros((), x.dtype)) for x in map(jnp.asarray, (a, b)))
    return a, b, group, mask
