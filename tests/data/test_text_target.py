"""Captions as targets: they come back as they were, and what is none is a bad record."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.words import pack, unpack
from mmjax.data.source import BadRecord
from mmjax.data.text_target import TextTarget


def test_captions_come_back_as_they_were():
    target = TextTarget(max_bytes=20)
    said = ["red apple", ["Côte d’Ivoire", "another"], b"  two\n words\0"]
    rows = target.collate([*(target.prepare({"caption": each}) for each in said), None])
    assert (rows.shape[1:], rows.dtype) == target.out_spec() and len(rows) == 4
    assert unpack(rows, "captions") == ["red apple", "Côte d’Ivoire", "two words", ""]
    assert target.collate([]).shape == (0, 20)


@pytest.mark.parametrize(
    ("caption", "kind"),
    [([], "empty_caption"), (" \n", "empty_caption"), ("é" * 11, "long_caption"), (b"\xff", "bad_encoding")],
)
def test_what_is_no_caption_is_a_bad_record(caption, kind):
    with pytest.raises(BadRecord) as caught:
        TextTarget(max_bytes=20).prepare({"caption": caption})
    assert caught.value.kind == kind


def test_a_caption_may_fill_its_row_and_numbers_are_no_texts():
    assert unpack(pack([b"abcd", b"ab"], 4), "them") == ["abcd", "ab"]
    with pytest.raises(UserError, match=r"^them is float32 \[2, 3\]; expected texts"):
        unpack(np.zeros((2, 3), np.float32), "them")
    with pytest.raises(UserError, match="max_bytes=0 must be at least 1"):
        TextTarget(max_bytes=0)
