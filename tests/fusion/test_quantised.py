"""Quantised: the penalties of van den Oord et al., each with its own half of the gradient."""

import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Tokens
from mmjax.fusion.quantised import Quantised
from tests.quick import jit

RNG = np.random.default_rng(0)
TOKENS = Tokens(RNG.normal(size=(4, 6, 8)).astype(np.float32), np.arange(6) < np.array([[6], [3], [0], [6]]))
MODULE = Quantised(12, width=8, code_width=3)
PARAMS = jit(MODULE.init)(jax.random.key(0), {"image": TOKENS})["params"]


def run(params, tokens=TOKENS):
    return MODULE.apply({"params": params}, {"image": tokens})


def test_codes_probabilities_and_tokens_of_codes_alone():
    found = jit(run)(PARAMS)
    codes = found.codes["image"]
    assert codes.index.shape == (4, 6) and codes.index.dtype == np.int32 and (codes.index < 12).all()
    np.testing.assert_allclose(codes.shares.sum(axis=1), [1, 1, 0, 1], atol=1e-5)
    assert ((codes.entropy >= 0) & (codes.entropy <= np.log(12))).all()
    vectors, index = np.asarray(found.fused.x).reshape(24, 8), np.asarray(codes.index).reshape(24)
    for code in np.unique(index):  # one code, one token
        np.testing.assert_allclose(
            vectors[index == code], vectors[index == code][:1].repeat((index == code).sum(), 0), atol=1e-5
        )


def test_the_codebook_learns_by_one_penalty_and_the_encoder_by_the_other():
    found = jit(run)(PARAMS)
    np.testing.assert_allclose(found.penalties["commitment"], 0.25 * found.penalties["codebook"], rtol=1e-5)
    assert found.penalties["codebook"][2] == 0  # it has no token

    def grad(name):
        return jit(jax.grad(lambda p: run(p).penalties[name].sum()))(PARAMS)

    book, encoder = grad("codebook"), grad("commitment")
    assert np.abs(book["book"]["codebook"]).max() > 0 and not np.asarray(book["code"]["kernel"]).any()
    assert np.abs(encoder["code"]["kernel"]).max() > 0 and not np.asarray(encoder["book"]["codebook"]).any()


def test_what_is_decoded_teaches_the_encoder_and_not_the_book():
    grads = jit(jax.grad(lambda p: (run(p).fused.x ** 2).sum()))(PARAMS)
    assert np.abs(grads["code"]["kernel"]).max() > 0 and not np.asarray(grads["book"]["codebook"]).any()


def test_two_modalities_are_a_sentence():
    with pytest.raises(UserError, match="expected one modality, got image, text"):
        MODULE.init(jax.random.key(0), {"image": TOKENS, "text": TOKENS})
