"""The masked head: it sees the hidden tokens, in order, from the encoder or from the fusion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Outputs, Tokens
from mmjax.decoders.masked import MaskedHead

RNG = np.random.default_rng(0)
HIDDEN = np.array([[0, 1, 0, 0, 1], [1, 1, 1, 1, 0], [0] * 5, [0, 0, 1, 0, 0]], bool)
X = RNG.normal(size=(4, 5, 6)).astype(np.float32)
MASK = np.array([[True] * 5, [True] * 5, [True] * 5, [False] * 5])


def outputs(x=X, hidden=HIDDEN) -> Outputs:
    return Outputs(
        tokens={"text": Tokens(x, MASK, None, hidden)}, in_context={"text": Tokens(2 * x, MASK, None, hidden)}
    )


def run(head, given, scale=0.0):
    params = head.init(jax.random.key(0), given)["params"]
    params["logits"]["kernel"] = scale * jnp.asarray(RNG.normal(size=params["logits"]["kernel"].shape), jnp.float32)
    return params, head.apply({"params": params}, given)


def test_the_hidden_tokens_in_order():
    _, found = run(MaskedHead("text", 9, most=3), outputs())
    np.testing.assert_array_equal(found["mask"], [[1, 1, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(found["positions"][:2], [[1, 4, 0], [0, 1, 2]])
    assert found["logits"].shape == (4, 3, 9)


def test_it_begins_with_equal_logits_in_float32():
    head = MaskedHead("text", 9, most=3, dtype=jnp.bfloat16)
    found = head.apply(head.init(jax.random.key(0), outputs()), outputs())
    assert found["logits"].dtype == jnp.float32 and not np.asarray(found["logits"]).any()


def test_logits_are_of_the_token_itself_from_encoder_or_fusion():
    head = MaskedHead("text", 9, most=2)
    params, found = run(head, outputs(), scale=1.0)
    alone = np.zeros_like(HIDDEN)
    alone[0, 4] = True
    other = head.apply({"params": params}, outputs(hidden=alone))
    np.testing.assert_allclose(found["logits"][0, 1], other["logits"][0, 0], atol=1e-5)
    inner = MaskedHead("text", 9, most=2, in_context=True).apply({"params": params}, outputs(x=X / 2))
    np.testing.assert_allclose(inner["logits"], found["logits"], atol=1e-5)


def test_nothing_hidden_is_no_answer_and_an_unknown_modality_a_sentence():
    _, found = run(MaskedHead("text", 9, most=2), outputs(hidden=None))
    assert not np.asarray(found["mask"]).any()
    head = MaskedHead("text", 9, most=2)
    assert head.apply(head.init(jax.random.key(0), outputs()), Outputs()) == {}
    with pytest.raises(UserError, match=r"MaskedHead.modality: 'texts' is unknown"):
        MaskedHead("texts", 9, most=2).init(jax.random.key(0), outputs())
