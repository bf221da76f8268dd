"""A tokenizer from a source's captions, and every caption as a record of its own."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.captions import CaptionView, with_trained_tokenizer
from mmjax.data.pipeline import Pipeline
from mmjax.data.transforms import TextTransform
from tests.data.memory import Pictures

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
