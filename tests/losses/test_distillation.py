"""Distillation losses against float64 by hand, and their identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.losses.distillation import feature_distillation, logit_distillation, relational_distillation

RNG = np.random.default_rng(0)
STUDENT, TEACHER = (RNG.normal(size=(7, width)).astype(np.float32) for width in (4, 5))
MASK = np.array([True, True, False, True, True, True, True])


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def huber(x):
    return np.where(np.abs(x) <= 1, 0.5 * x**2, np.abs(x) - 0.5)


def relations_by_hand(student, teacher, mask, block):
    """Equations 3 to 6 with loops, per example."""
    values = np.zeros(len(mask))
    for start in range(0, len(mask), block):
        rows = [i for i in range(start, min(start + block, len(mask))) if mask[i]]
        distances = [
            {(i, j): np.linalg.norm(x[i] - x[j]) for i in rows for j in rows if i != j} for x in (student, teacher)
        ]
        means = [np.mean(list(each.values())) for each in distances]
        for j in rows:
            pairs = [(i, j) for i in rows if i != j]
            differences = [distances[0][p] / means[0] - distances[1][p] / means[1] for p in pairs]
            values[j] = np.mean(huber(np.array(differences)))
            angles = []
            for i in rows:
                for k in rows:
                    if len({i, j, k}) == 3:
                        cosines = []
                        for x in (student, teacher):
                            a, b = x[i] - x[j], x[k] - x[j]
                            cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                        angles.append(cosines[0] - cosines[1])
            values[j] += 2 * np.mean(huber(np.array(angles)))
    return values


def test_logits_by_hand():
    teacher = RNG.normal(size=STUDENT.shape).astype(np.float32)
    for temperature in (1.0, 3.0):
        p, q = (softmax(x.astype(np.float64) / temperature) for x in (teacher, STUDENT))
        expected = temperature**2 * (p * np.log(p / q)).sum(axis=-1)
        np.testing.assert_allclose(logit_distillation(STUDENT, teacher, temperature), expected, rtol=1e-5)


def test_nothing_is_lost_where_student_and_teacher_agree():
    np.testing.assert_allclose(logit_distillation(STUDENT, STUDENT + 3.0, 2.0), np.zeros(7), atol=1e-6)
    np.testing.assert_array_equal(feature_distillation(STUDENT, STUDENT), np.zeros(7))
    turned = np.linalg.qr(RNG.normal(size=(4, 4)))[0].astype(np.float32)
    moved = 2.5 * STUDENT @ turned + 1.0  # relations do not see where, which way round and how large
    np.testing.assert_allclose(relational_distillation(STUDENT, moved, mask=MASK), np.zeros(7), atol=1e-6)


def test_features_by_hand():
    teacher = RNG.normal(size=STUDENT.shape).astype(np.float32)
    expected = ((STUDENT - teacher) ** 2).mean(axis=-1)
    np.testing.assert_allclose(feature_distillation(STUDENT, teacher), expected, rtol=1e-6)


@pytest.mark.parametrize("block", [4, 7, 16])
def test_relations_by_hand(block):
    expected = relations_by_hand(STUDENT.astype(np.float64), TEACHER.astype(np.float64), MASK, block)
    found = relational_distillation(STUDENT, TEACHER, mask=MASK, block=block)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[2] == 0


def test_what_is_masked_reaches_nothing_and_gradients_are_finite():
    student = np.concatenate([STUDENT, STUDENT[:2]])  # two examples that are one
    teacher, mask = np.concatenate([TEACHER, TEACHER[:2]]), np.concatenate([MASK, [True, False]])
    dirty = np.where(mask[:, None], student, np.nan).astype(np.float32)

    def total(x):
        return relational_distillation(x, teacher, mask=mask, block=16).sum()

    assert total(student) == total(dirty)
    gradient = jax.grad(total)(dirty)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~mask].any()
    none = relational_distillation(student, teacher, mask=np.zeros(9, bool))
    np.testing.assert_array_equal(none, np.zeros(9))


def test_bfloat16_is_taken_and_float32_given():
    halves = jnp.asarray(STUDENT, jnp.bfloat16)
    for found in (
        logit_distillation(halves, halves),
        feature_distillation(halves, halves),
        relational_distillation(halves, halves, mask=MASK),
    ):
        assert found.dtype == jnp.float32


def test_shapes_and_settings_that_do_not_fit_are_sentences():
    with pytest.raises(UserError, match="a decoder such as Head can map"):
        feature_distillation(STUDENT, TEACHER)
    with pytest.raises(UserError, match="temperature=0 must be positive"):
        logit_distillation(STUDENT, STUDENT, 0)
    with pytest.raises(UserError, match="expected features"):
        relational_distillation(STUDENT, TEACHER[:3], mask=MASK)
    with pytest.raises(UserError, match="block=2 must be at least 3"):
        relational_distillation(STUDENT, TEACHER, mask=MASK, block=2)
