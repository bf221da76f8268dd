"""The contrastive losses without the N x N logits: sharded over the batch axes, chunked within a device.

Same values and gradients as `mmjax.losses.contrastive`. With K devices a device holds O(N / K) rows and one tile of
chunk_size x chunk_size logits. The rows of the other side pass by on a ring of `ppermute`, in blocks that neighbours
join while they are smaller than a chunk, and the backward pass computes each tile again. What travels is the embeddings
in their own dtype, and float32 sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmjax.core.mesh import BATCH_AXES
from mmjax.losses.contrastive import prepare
from mmjax.losses.ring_sigmoid import sigmoid_loss
from mmjax.losses.ring_softmax import softmax_loss
from mmjax.losses.sweep import make_plan


def ring_softmax_contrastive(
    a: jax.Array,
    b: jax.Array,
    *,
    logit_scale: jax.Array | float,
    group: jax.Array | None = None,
    mask: jax.Array | None = None,
    chunk_size: int | None = None,
    axes: Sequence[str] = BATCH_AXES,
) -> jax.Array:
    """Symmetric InfoNCE, per example: `softmax_contrastive` without its [N, N] logits.

    Args:
      a: [N, D] embeddings of one modality, float32 or bfloat16; unit vectors for cosine logits.
      b: [N, D] embeddings of the other; b[i] is of the same example as a[i].
      logit_scale: [] multiplicative temperature (already exponentiated and clamped).
      group: [N] int; examples with the same number are positives of one another. None: each is alone.
      mask: [N] bool; a False row is in nobody's sum and its loss is 0, whatever its embeddings hold. None: all True.
      chunk_size: the most rows and columns of a tile of logits; need not divide anything. None: `sweep.DEFAULT_CHUNK`.
      axes: axes of the mesh of `jax.set_mesh` to shard the rows over; those that the mesh lacks are left out, and
        without a mesh all is on one device. Axes not named repeat the work, so a mesh with a large tensor axis may
        name it here too.

    Returns:
      [N] float32 loss per example.

    Raises:
      UserError: shapes or dtypes that do not fit together; N that the axes do not divide; chunk_size below 1.

    References:
      Radford et al. 2021 (CLIP, figure 3), https://arxiv.org/abs/2103.00020;
      online log-sum-exp: Milakov and Gimelshein 2018 (algorithm 3), https://arxiv.org/abs/1805.02867;
      the ring with tiles: Cheng et al. 2024 (Inf-CL, section 3), https://arxiv.org/abs/2410.17243
    """
    a, b, group, mask = prepare(a, b, logit_scale, 0.0, group, mask)
    plan = make_plan(a.shape[0], chunk_size, axes)
    return softmax_loss(plan, a, b, jnp.asarray(logit_scale, jnp.float32), group, mask)


def ring_sigmoid_contrastive(
    a: jax.Array,
    b: jax.Array,
    *,
    logit_scale: jax.Array | float,
    logit_bias: jax.Array | float,
    group: jax.Array | None = None,
    mask: jax.Array | None = None,
    chunk_size: int | None = None,
    axes: Sequence[str] = BATCH_AXES,
) -> jax.Array:
    """Pairwise sigmoid loss, per example: `sigmoid_contrastive` without its [N, N] logits.

    Args:
      a: [N, D] embeddings of one modality, float32 or bfloat16; unit vectors for cosine logits.
      b: [N, D] embeddings of the other; b[i] is of the same example as a[i].
      logit_scale: [] multiplicative temperature (already exponentiated).
      logit_bias: [] added to every logit.
      group: [N] int; examples with the same number are positives of one another. None: each is alone.
      mask: [N] bool; a False row is in nobody's sum and its loss is 0, whatever its embeddings hold. None: all True.
      chunk_size: the most rows and columns of a tile of logits; need not divide anything. None: `sweep.DEFAULT_CHUNK`.
      axes: axes of the mesh of `jax.set_mesh` to shard the rows over, as in `ring_softmax_contrastive`.

    Returns:
      [N] float32 loss per example: row sums, so that their mean over the N rows is the published loss.

    Raises:
      UserError: shapes or dtypes that do not fit together; N that the axes do not divide; chunk_size below 1.

    References:
      Zhai et al. 2023 (SigLIP, equation 1; the chunked ring: section 3.3), https://arxiv.org/abs/2303.15343
    """
    a, b, group, mask = prepare(a, b, logit_scale, logit_bias, group, mask)
    plan = make_plan(a.shape[0], chunk_size, axes)
    scale, bias = jnp.asarray(logit_scale, jnp.float32), jnp.asarray(logit_bias, jnp.float32)
    return sigmoid_loss(plan, a, b, scale, bias, group, mask)
