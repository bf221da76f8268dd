"""Modality dropout: its rates, that one modality always stays, and that it is the example's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.layers.dropout import example_keys
from mmjax.layers.modality_dropout import drop_modalities

SIZE = 4000


def streams(**present):
    return {
        name: Stream(jnp.zeros((SIZE, 2)), jnp.broadcast_to(jnp.asarray(p), (SIZE,))[:, None])
        for name, p in present.items()
    }


def kept(rates, **present):
    found = drop_modalities(streams(**present), rates, example_keys(jax.random.key(0), SIZE))
    return {name: np.asarray(stream.present) for name, stream in found.items()}


def test_rates_are_met_and_one_always_stays():
    found = kept({"a": 0.3, "b": 0.5}, a=True, b=True, c=True)
    assert found["c"].all()
    assert found["a"].mean() == pytest.approx(0.7, abs=0.03)  # four standard deviations
    assert found["b"].mean() == pytest.approx(0.5, abs=0.04)
    found = kept({"a": 0.5, "b": 0.5}, a=True, b=True)
    assert (found["a"] | found["b"]).all()
    assert (found["a"] & found["b"]).mean() == pytest.approx(0.25, abs=0.03)
    certain = kept({"a": 1.0, "b": 1.0}, a=True, b=True)
    assert (certain["a"] ^ certain["b"]).all() and certain["a"].mean() == pytest.approx(0.5, abs=0.04)


def test_what_is_missing_stays_missing_and_what_is_alone_stays():
    present = np.arange(SIZE) % 2 == 0
    found = kept({"a": 0.9, "b": 0.9}, a=present, b=~present)
    np.testing.assert_array_equal(found["a"], present)
    np.testing.assert_array_equal(found["b"], ~present)
    nothing = kept({"a": 0.5}, a=False, b=False)
    assert not nothing["a"].any() and not nothing["b"].any()


def test_the_draw_belongs_to_the_example():
    keys = example_keys(jax.random.key(0), SIZE)
    whole = drop_modalities(streams(a=True, b=True), {"a": 0.5}, keys)["a"].mask
    part = {name: Stream(s.values[7:9], s.mask[7:9]) for name, s in streams(a=True, b=True).items()}
    np.testing.assert_array_equal(drop_modalities(part, {"a": 0.5}, keys[7:9])["a"].mask, whole[7:9])


def test_wrong_rates_are_sentences():
    with pytest.raises(UserError, match="'imag' is unknown"):
        kept({"imag": 0.5}, image=True)
    with pytest.raises(UserError, match="is no probability"):
        kept({"a": 1.5}, a=True)
