"""A tokenizer from a source's captions, and every caption as a record of its own."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.captions import CaptionView, with_trained_tokenizer
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.targets import classes_of
from mmjax.data.transforms import TextTransform
from tests.data.memory import Numbers, Pictures

BYTES = TextTransform(tokenizer="bytes", context_length=24)


def change(index, record):
    captions = {0: ["a", "b", "c"], 1: [], 2: ["d"]}
    return record | {"caption": captions.get(index, record["caption"])}


def test_the_trained_tokenizer_is_deterministic_and_skips_bad_records():
    transform = TextTransform(vocab_size=300, context_length=8)
    found = [with_trained_tokenizer(transform, Pictures(20, change=change)) for _ in range(2)]
    assert found[0] == found[1] and found[0].tokenizer.vocab_size <= 300
    assert with_trained_tokenizer(BYTES, Pictures(20)) is BYTES
    few = with_trained_tokenizer(transform, Pictures(20), max_records=3)
    assert few != found[0]


def test_no_caption_at_all_is_a_sentence():
    source = Pictures(3, change=lambda _, record: record | {"caption": []})
    with pytest.raises(UserError, match="none of 3 records has a caption"):
        with_trained_tokenizer(TextTransform(), source)


def test_every_caption_is_evaluated_once_with_its_pictures_group():
    view = CaptionView(Pictures(5, change=change), BYTES)
    assert len(view) == 8 and [view.group(i) for i in range(8)] == [0, 0, 0, 2, 3, 3, 4, 4]
    assert view.label(1) == "pictures/0 caption 1"
    batches = list(Pipeline(view, {"text": BYTES}, batch_size=3).eval_batches())
    groups = np.concatenate([batch.group for batch in batches])
    mask = np.concatenate([batch.mask for batch in batches])
    values = np.concatenate([batch.streams["text"].values for batch in batches])
    assert groups[mask].tolist() == [0, 0, 0, 2, 3, 3, 4, 4]
    texts = [BYTES.tokenizer.decode(row) for row in values[mask]]
    assert texts == ["a", "b", "c", "d", "picture 3", "bild nummer 3", "picture 4", "bild nummer 4"]


def test_a_part_of_a_mixture_without_captions_has_none():
    mixture = Mixture([Pictures(3), Numbers(4), Pictures(2)])
    assert with_trained_tokenizer(TextTransform(vocab_size=300), mixture).tokenizer.vocab_size > 256
    view = CaptionView(mixture, BYTES)
    assert [view.group(i) for i in range(len(view))] == [0, 0, 1, 1, 2, 2, 7, 7, 8, 8]
    with pytest.raises(UserError, match=r"no column 'captoin'. Did you mean 'caption'"):
        CaptionView(Pictures(3), TextTransform(column="captoin", tokenizer="bytes"))


def test_storage_that_fails_is_a_sentence_with_the_record():
    def fail(index, record):
        if index == 1:
            raise PermissionError(13, "Permission denied", "a.jpg")
        return record

    for read in (lambda source: CaptionView(source, BYTES), lambda source: classes_of(source, "caption")):
        with pytest.raises(UserError, match=r"pictures/1 cannot be read: .*Permission denied: 'a.jpg'"):
            read(Pictures(2, change=fail))
