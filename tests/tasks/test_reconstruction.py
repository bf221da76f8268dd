"""The image tokenizer's task: error, usage of the codebook, and a short fit that uses it."""

import jax
import numpy as np
import optax
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.tasks.reconstruction import Reconstruction, squared_error
from tests.quick import jit
from tests.tasks.flava import CODES, PATCH, image_tokenizer, loss_of

RNG = np.random.default_rng(0)
SIZE = 32
COLOURS = RNG.integers(0, 256, (SIZE, 2, 2, 3))  # of each patch
PIXELS = np.kron(COLOURS, np.ones((1, PATCH, PATCH, 1))).astype(np.uint8)  # [32, 8, 8, 3]
BATCH = Batch({"image": Stream(PIXELS, (np.arange(SIZE) != 3)[:, None])}, np.arange(SIZE), np.arange(SIZE) != 5)
TASK = Reconstruction(patch_size=PATCH, codebook_size=CODES, entropy=0.1)
MODEL = image_tokenizer()
PARAMS = jit(MODEL.init)(jax.random.key(0), BATCH.streams)["params"]


def test_error_is_of_pixels_in_0_to_1():
    patches = PIXELS.reshape(SIZE, 2, PATCH, 2, PATCH, 3).transpose(0, 1, 3, 2, 4, 5).reshape(SIZE, 4, -1) / 255
    predicted = RNG.normal(size=patches.shape).astype(np.float32)
    np.testing.assert_allclose(
        squared_error(predicted, PIXELS, PATCH), np.square(predicted - patches).mean(axis=(1, 2)), rtol=1e-5
    )
    assert squared_error(patches.astype(np.float32), PIXELS, PATCH).max() < 1e-12
    with pytest.raises(UserError, match=r"cuts the images into \[32, 16, 12\]"):
        squared_error(predicted, PIXELS, 2)


def test_metrics_count_codes_of_images_that_are_there():
    outputs = MODEL.apply({"params": PARAMS}, BATCH.streams)
    found = loss_of(MODEL, TASK, PARAMS, BATCH, noise=False)
    there = np.ones(SIZE, bool)
    there[[3, 5]] = False
    counts = np.bincount(np.asarray(outputs.codes["image"].index)[there].reshape(-1), minlength=CODES)
    shares = counts[counts > 0] / counts.sum()
    assert float(found.metrics["codes_used"]) == pytest.approx(np.mean(counts > 0))
    assert float(found.metrics["perplexity"]) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    np.testing.assert_array_equal(found.mask, there)


def test_leaving_codes_unused_costs():
    plain, priced = (
        loss_of(
            MODEL, Reconstruction(patch_size=PATCH, codebook_size=CODES, entropy=weight), PARAMS, BATCH, noise=False
        )
        for weight in (0.0, 1.0)
    )
    codes = MODEL.apply({"params": PARAMS}, BATCH.streams).codes["image"]
    mean = np.asarray(codes.shares)[plain.mask].mean(axis=0)
    expected = np.asarray(codes.entropy)[plain.mask].mean() + (mean * np.log(mean)).sum()
    assert float(priced.mean() - plain.mean()) == pytest.approx(expected, rel=1e-4) and expected < 0


def test_a_short_fit_uses_most_of_the_book_and_halves_the_error():
    optimizer = optax.adam(3e-3)

    @jit
    def update(params, state):
        def loss(params):
            found = loss_of(MODEL, TASK, params, BATCH, noise=False)
            return found.mean(), found.metrics

        (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, metrics

    params, state = PARAMS, optimizer.init(PARAMS)
    history = []
    for _ in range(150):
        params, state, metrics = update(params, state)
        history.append(metrics)
    assert history[-1]["codes_used"] >= 0.8 and history[-1]["perplexity"] > 0.6 * CODES
    assert history[-1]["mean_squared_error"] < 0.5 * history[0]["mean_squared_error"]
