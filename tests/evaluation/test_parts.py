"""Parts of an input: how it is cut, what is left, and curves that delete and insert them."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.evaluation.curves import deletion, insertion
from mmjax.evaluation.parts import count_parts, existing, keep_parts

RNG = np.random.default_rng(0)
PICTURE = Stream(RNG.integers(0, 256, (2, 8, 12, 3), dtype=np.uint8), np.array([[True], [False]]))
TEXT = Stream(RNG.integers(1, 9, (2, 6)).astype(np.int32), np.arange(6) < np.array([[6], [3]]))


def test_counts_follow_from_the_shape():
    assert count_parts(PICTURE, 17) == 16 and count_parts(PICTURE, 3) == 1 and count_parts(PICTURE, 10_000) == 64
    assert count_parts(TEXT, 16) == 6 and count_parts(TEXT, 4) == 4
    with pytest.raises(UserError, match=r"got values \(2, 5\) with mask \(2, 1\)"):
        count_parts(Stream(np.zeros((2, 5)), np.ones((2, 1), bool)), 4)
    with pytest.raises(UserError, match="0 parts"):
        count_parts(TEXT, 0)


def test_all_parts_are_the_input_itself():
    for stream, count in ((PICTURE, 16), (TEXT, 6), (TEXT, 4)):
        same = keep_parts(stream, np.ones((2, count), bool))
        np.testing.assert_array_equal(same.values, stream.values)
        np.testing.assert_array_equal(same.mask, stream.mask)
        assert same.values.dtype == stream.values.dtype


def test_what_is_left_out_of_a_picture_is_its_mean_colour():
    keep = np.zeros((2, 4), bool)
    keep[:, 1] = True  # the upper right quarter
    found = np.asarray(keep_parts(PICTURE, keep).values)
    np.testing.assert_array_equal(found[:, :4, 6:], PICTURE.values[:, :4, 6:])
    rest = found.copy()
    rest[:, :4, 6:] = rest[:, -1:, :1]
    mean = PICTURE.values.mean(axis=(1, 2)).astype(int)
    assert np.abs(rest - mean[:, None, None]).max() <= 1


def test_what_is_left_out_of_a_sequence_is_masked():
    found = keep_parts(TEXT, np.array([[True, False, True], [False, False, True]]))
    np.testing.assert_array_equal(found.mask, [[1, 1, 0, 0, 1, 1], [1] + [0] * 5])
    np.testing.assert_array_equal(found.values[0], np.where(found.mask[0], TEXT.values[0], 0))
    assert not found.values[1, 0]
    assert found.values.dtype == np.int32
    series = Stream(np.ones((2, 6, 3), np.float32), TEXT.mask)
    assert keep_parts(series, np.array([[True, False], [True, True]])).values.sum(axis=(1, 2)).tolist() == [9, 18]


def test_a_sequence_without_parts_is_there_and_says_nothing():
    stream = TEXT.replace(mask=np.array([[0, 1, 1, 0, 0, 0], [0] * 6], bool))
    found = keep_parts(stream, np.zeros((2, 3), bool))
    np.testing.assert_array_equal(found.mask, [[0, 1, 0, 0, 0, 0], [0] * 6])
    assert not found.values.any()


def test_which_parts_exist():
    np.testing.assert_array_equal(existing(TEXT, 3), [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(existing(PICTURE, 4), [[1] * 4, [0] * 4])


def test_curves_of_a_sum():
    """The score is the sum of weights: deleting in their order falls fastest, inserting rises fastest."""
    weights = np.array([1.0, 8.0, 2.0, 5.0])
    there = np.array([True, True, True, False])

    def value(keep):
        assert not keep[:, 3].any()
        return keep @ weights

    fall = deletion(value, weights, there, steps=3)
    np.testing.assert_allclose(fall.score, [11, 3, 1, 0])
    rise = insertion(value, weights, there, steps=3)
    np.testing.assert_allclose(rise.score, [0, 8, 10, 11])
    assert fall.area == pytest.approx((5.5 + 3 + 1) / 3) and rise.area == pytest.approx((5.5 + 8 + 10) / 3)
    assert fall.area < deletion(value, -weights, there, steps=3).area
    with pytest.raises(UserError, match="steps=0"):
        deletion(value, weights, steps=0)
