"""Trees by path: masks with dead patterns named, strict merge."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.trees import flatten, path_mask, strict_merge

TREE = {"image": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}, "text": {"kernel": np.zeros((4, 3))}}


def test_path_mask_marks_whole_paths():
    assert flatten(path_mask(TREE, [r".*/kernel"], "decay")) == {
        "image/bias": False,
        "image/kernel": True,
        "text/kernel": True,
    }


def test_a_dead_pattern_is_an_error_with_the_nearest():
    with pytest.raises(
        UserError, match=r"decay: the pattern 'image/kernl' matches no parameter. Did you mean 'image/k"
    ):
        path_mask(TREE, ["image/kernl"], "decay")


def test_strict_merge_lists_every_problem():
    loaded = {"image/kernel": np.ones((2, 4)), "image/bias": np.ones(3), "audio/kernel": np.ones(1)}
    with pytest.raises(UserError) as error:
        strict_merge(TREE, loaded)
    for line in ("missing: text/kernel (4, 3)", "extra: audio/kernel (1,)", "image/kernel is (2, 4), expected (2, 3)"):
        assert line in str(error.value)


def test_strict_merge_takes_what_is_named():
    loaded = {"image/kernel": np.ones((2, 4)), "image/bias": np.ones(3), "audio/kernel": np.ones(1)}
    merged = strict_merge(TREE, loaded, allow_missing=["text/.*", "image/kernel"], allow_extra=["audio/.*"])
    assert merged["image"]["bias"].sum() == 3 and merged["image"]["kernel"].shape == (2, 3)
    assert set(flatten(merged)) == set(flatten(TREE))
