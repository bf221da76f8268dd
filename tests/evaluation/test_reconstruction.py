"""Reconstruction: error and usage over a data set, padding and missing images left out."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.reconstruction import ReconstructionEvaluator

EVALUATOR = ReconstructionEvaluator(patch_size=2, codebook_size=8)
CODES = np.array([[0, 1, 1, 1], [1, 1, 1, 0], [2, 1, 1, 2], [7, 7, 7, 7]])


def batches():
    """Two batches of four black images of four patches; row 2 of the first lacks its image, row 3 is padding."""
    for _ in range(2):
        stream = Stream(np.zeros((4, 4, 4, 3), np.uint8), (np.arange(4) != 2)[:, None])
        yield Batch({"image": stream}, np.arange(4), np.arange(4) != 3)


def embed(batch):
    error = np.array([0.1, 0.3, 9.0, np.nan])
    return {"pixels": np.broadcast_to(error[:, None, None], (4, 4, 12)), "codes": CODES}


def test_error_and_usage():
    found = EVALUATOR(embed, batches())
    assert found["mean_squared_error"] == pytest.approx((0.01 + 0.09) / 2, rel=1e-5)
    assert found["psnr"] == pytest.approx(-10 * np.log10(0.05), rel=1e-5)
    assert found["codes_used"] == 2 / 8
    shares = np.array([2, 6]) / 8
    assert found["perplexity"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_a_missing_decoder_is_a_sentence():
    with pytest.raises(UserError, match="reconstruction: the decoder: 'codes' is unknown"):
        EVALUATOR(lambda batch: {"pixels": embed(batch)["pixels"]}, batches())
