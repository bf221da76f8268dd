"""The contrastive task: which examples count, the mean, agreement of its forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.losses.contrastive import softmax_contrastive
from mmjax.tasks.contrastive import Contrastive
from mmjax.tasks.task import TaskLoss

RNG = np.random.default_rng(0)


def unit(shape):
    x = RNG.normal(size=shape).astype(np.float32)
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


A, B = unit((6, 4)), unit((6, 4))
IMAGE_MASK = np.ones((6, 1), bool)
TEXT_MASK = np.ones((6, 3), bool)
TEXT_MASK[2] = False
BATCH = Batch(
    {"image": Stream(np.zeros((6, 1)), IMAGE_MASK), "text": Stream(np.zeros((6, 3)), TEXT_MASK)},
    group=np.array([0, 1, 2, 3, 0, 5], np.int32),
    mask=np.array([True] * 5 + [False]),
)


def pair(first, second, rows=slice(None)):
    """Returns what Contrastive.embed gives for two embeddings of these rows of the batch."""
    return {
        "pair": (first[rows], second[rows]),
        "both": jnp.asarray(TEXT_MASK.any(1)[rows], jnp.float32),
        "penalties": {},
    }


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_forms_agree_and_missing_or_padding_rows_do_not_count(kind):
    shared = {"logit_scale": jnp.asarray(7.0)} | ({"logit_bias": jnp.asarray(-3.0)} if kind == "sigmoid" else {})
    found = {form: Contrastive(kind=kind, form=form).loss(pair(A, B), shared, BATCH) for form in ("dense", "ring")}
    np.testing.assert_array_equal(found["dense"].mask, [True, True, False, True, True, False])
    np.testing.assert_allclose(found["dense"].values, found["ring"].values, rtol=1e-5)
    kept = np.array([0, 1, 3, 4])
    alone = Batch(
        {name: Stream(np.zeros((4, 1)), np.ones((4, 1), bool)) for name in ("image", "text")},
        BATCH.group[kept],
        np.ones(4, bool),
    )
    expected = Contrastive(kind=kind, form="dense").loss(pair(A, B, kept), shared, alone)
    assert float(found["ring"].mean()) == pytest.approx(float(expected.mean()), rel=1e-5)


def test_the_mean_is_over_what_counts_and_zero_where_nothing_does():
    loss = TaskLoss(jnp.asarray([1.0, jnp.nan, 3.0]), jnp.asarray([True, False, True]))
    assert float(loss.mean()) == 2
    assert float(TaskLoss(jnp.asarray([jnp.nan]), jnp.asarray([False])).mean()) == 0
    assert float(TaskLoss(jnp.asarray([jnp.nan]), jnp.asarray([True])).mean()) != 0


def test_groups_are_positives_of_one_another():
    shared = {"logit_scale": jnp.asarray(7.0)}
    values = Contrastive(form="dense").loss(pair(A, B), shared, BATCH).values
    mask = BATCH.mask & TEXT_MASK.any(1)
    np.testing.assert_allclose(values, softmax_contrastive(A, B, logit_scale=7.0, group=BATCH.group, mask=mask))


def test_unknown_names_are_sentences():
    with pytest.raises(UserError, match=r"Contrastive.kind: 'softmx' is unknown. Did you mean 'softmax'\?"):
        Contrastive(kind="softmx")
    with pytest.raises(UserError, match=r"Contrastive\.form: .tree. is unknown"):
        Contrastive(form="tree")
