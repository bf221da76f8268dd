"""Distillation: what a student's logits, features and relations between examples lack of a teacher's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mmjax.core.arrays import mean_where
from mmjax.core.errors import UserError, at_least

BLOCK = 16
"""Examples whose relations are compared; angles are of all triples of a block."""


def logit_distillation(student: jax.Array, teacher: jax.Array, temperature: float = 1.0) -> jax.Array:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), per example; 0 where both are the same.

    Args:
      student, teacher: [B, K] logits.
      temperature: T; the factor T^2 keeps the size of the gradient.

    Returns:
      [B] float32.

    Raises:
      UserError: shapes that differ, fewer than two classes, or a temperature that is not positive.

    References:
      Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2.
    """
    _same("logit distillation", student, teacher)
    if student.shape[-1] < 2:
        raise UserError(
            "logit distillation: a head of one number has no classes, and nothing to tell of them; its values are "
            "for feature_distillation."
        )
    if temperature <= 0:
        raise UserError(f"logit distillation: temperature={temperature} must be positive.")
    student, teacher = (jax.nn.log_softmax(x.astype(jnp.float32) / temperature) for x in (student, teacher))
    return temperature**2 * optax.losses.kl_divergence_with_log_targets(student, teacher)


def feature_distillation(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """Mean squared difference of two features, per example.

    Args:
      student: [B, D], through the regressor that maps the student's width to the teacher's.
      teacher: [B, D].

    Returns:
      [B] float32.

    Raises:
      UserError: shapes that differ.

    References:
      Romero et al., FitNets: Hints for Thin Deep Nets, 2015, equation 3 (there half the sum).
    """
    _same("feature distillation", student, teacher)
    return jnp.square(student.astype(jnp.float32) - teacher.astype(jnp.float32)).mean(axis=-1)


def relational_distillation(
    student: jax.Array,
    teacher: jax.Array,
    *,
    mask: jax.Array,
    distance: float = 1.0,
    angle: float = 2.0,
    block: int = BLOCK,
) -> jax.Array:
    """How far distances and angles between a student's features are from those between a teacher's, per example.

    Only examples of the same block of consecutive rows are compared, so nothing is B x B, and the number of devices
    changes nothing. Distances are over the mean of their block; differences go through a Huber loss of delta 1.

    Args:
      student: [B, D]; teacher: [B, E]. The widths may differ.
      mask: [B] bool; a False row is in nobody's relations, whatever it holds.
      distance, angle: weights of the two.
      block: rows of a block; the last may hold fewer.

    Returns:
      [B] float32: of row j the mean over its pairs (i, j), and over its angles (i, j, k) at j; 0 where it has none.

    Raises:
      UserError: features that are not [B, D] and [B, E], or a block of fewer than 3 rows.

    References:
      Park et al., Relational Knowledge Distillation, 2019, equations 3 to 6.
    """
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise UserError(
            f"relational distillation: expected features [B, D] and [B, E], got {student.shape} and {teacher.shape}."
        )
    at_least(3, "relational distillation", block=block)
    size = len(student)

    def blocks(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, -size % block), *[(0, 0)] * (x.ndim - 1)])
        return x.reshape(-1, block, *x.shape[1:])  # [B / block, block, ...]

    features = [jnp.where(mask[:, None], x.astype(jnp.float32), 0.0) for x in (student, teacher)]
    one = jax.vmap(lambda s, t, m: distance * _distances(s, t, m) + angle * _angles(s, t, m))
    return one(*map(blocks, features), blocks(mask)).reshape(-1)[:size]  # [B]


def _same(who: str, student: jax.Array, teacher: jax.Array) -> None:
    if student.ndim != 2 or student.shape != teacher.shape:
        raise UserError(
            f"{who}: student and teacher must be of one shape [batch, width], but are {student.shape} and "
            f"{teacher.shape}; a decoder such as Head can map the student's to the teacher's."
        )


def _distances(student: jax.Array, teacher: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns [n]: of each row of a block the mean over the others."""
    pairs = mask[:, None] & mask[None, :] & ~jnp.eye(len(mask), dtype=bool)  # [n, n]

    def relative(x: jax.Array) -> jax.Array:
        lengths = _length(x[:, None] - x[None, :])[..., 0]  # [n, n]
        mean = mean_where(lengths, pairs)
        return lengths / jnp.where(mean > 0, mean, 1.0)

    return mean_where(optax.losses.huber_loss(relative(student), relative(teacher)), pairs, axis=1)


def _angles(student: jax.Array, teacher: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns [n]: of each row of a block the mean over the pairs of others that it is the corner of."""
    pairs = mask[:, None] & mask[None, :] & ~jnp.eye(len(mask), dtype=bool)  # [j, i]
    triples = pairs[:, :, None] & pairs[:, None, :] & ~jnp.eye(len(mask), dtype=bool)  # [j, i, k]

    def cosines(x: jax.Array) -> jax.Array:
        arms = x[None, :] - x[:, None]  # [j, i, D]: from corner j to i
        arms = arms / _length(arms)
        return jnp.einsum("jid,jkd->jik", arms, arms, precision=jax.lax.Precision.HIGHEST)

    return mean_where(optax.losses.huber_loss(cosines(student), cosines(teacher)), triples, axis=(1, 2))


def _length(x: jax.Array) -> jax.Array:
    """Returns the lengths of x [..., D] as [..., 1]; that of a zero vector is tiny, with a finite gradient."""
    return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-12))
