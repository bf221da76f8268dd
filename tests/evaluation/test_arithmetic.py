"""Embedding arithmetic: the triples, planted vectors are found exactly, the base is no candidate, sentences."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.core.words import pack
from mmjax.evaluation.arithmetic import ArithmeticEvaluator, Triple, triples
from mmjax.evaluation.evaluator import unit

COLOURS, THINGS = ("red", "dark blue", "green"), ("car", "big house", "tree", "hat")


def axis(number: int) -> np.ndarray:
    """Returns a unit vector of the planted space."""
    return np.eye(len(COLOURS) + len(THINGS), dtype=np.float32)[number]


SAID = {colour: axis(number) for number, colour in enumerate(COLOURS)}
SEEN = {thing: axis(len(COLOURS) + number) for number, thing in enumerate(THINGS)}
WHOLE = {f"{thing} {colour}": unit(SEEN[thing] + SAID[colour]) for thing in THINGS for colour in COLOURS}


def batches(pictures, size=4, modality="picture"):
    """Yields batches of the vectors of captions, the last filled up with rows that are none."""
    captions = list(pictures)
    for start in range(0, len(captions), size):
        some = captions[start : start + size]
        values = np.full((size, 7), np.nan, np.float32)
        values[: len(some)] = [pictures[caption] for caption in some]
        mask = np.arange(size) < len(some)
        text = pack([caption.encode() for caption in some] + [None] * (size - len(some)), 32)
        group = np.arange(start, start + size, dtype=np.int32)
        yield Batch({modality: Stream(values, mask[:, None])}, group, mask, {"caption": text})


def embed(batch):
    return {name: stream.values for name, stream in batch.streams.items()}


def encode(texts):
    return np.stack([3.0 * SAID[text] for text in texts])


EVALUATOR = ArithmeticEvaluator("picture", "words")


def test_planted_vectors_are_found_by_the_sum_and_not_by_either_part():
    found = EVALUATOR(embed, batches(SEEN | WHOLE), encode)
    assert found["triples"] == 12
    assert found["picture+words/recall_at_1"] == 1
    # The thing alone is level with its three colours, the colour alone with its four things.
    assert found["picture/recall_at_1"] == pytest.approx(1 / 3) and found["picture/recall_at_5"] == 1
    assert found["words/recall_at_1"] == pytest.approx(1 / 4) and found["words/recall_at_5"] == 1
    assert found["chance/recall_at_1"] == pytest.approx(1 / 15)
    assert found["chance/recall_at_5"] == pytest.approx(5 / 15)


def test_the_base_itself_is_no_candidate():
    """Without that it would beat its own colours."""
    found = EVALUATOR(embed, batches({"hat": SEEN["hat"], "hat red": WHOLE["hat red"]}), encode)
    assert found["picture/recall_at_1"] == found["chance/recall_at_1"] == 1 and found["triples"] == 1


def test_bases_may_come_from_the_training_records():
    with pytest.raises(UserError, match="none of 12 captions is another one's with ' '"):
        EVALUATOR(embed, batches(WHOLE), encode)
    evaluator = ArithmeticEvaluator("picture", "words", train_bases=True)
    assert evaluator.needs == {"encode_text": "words", "train_batches": "picture"}
    found = evaluator(embed, batches(WHOLE), encode, batches(SEEN))
    assert found["triples"] == 12 and found["picture+words/recall_at_1"] == 1
    assert found["chance/recall_at_1"] == pytest.approx(1 / 12)  # what was trained on is not found
    assert EVALUATOR.needs == {"encode_text": "words"} and EVALUATOR.modalities == ("picture",)


def test_triples_take_the_longest_base_and_any_separator():
    captions = ["hand", "hand up", "hand up dark", "hands", "up", "hand "]
    assert triples(captions, captions, " ") == [
        Triple("hand", "up", "hand up"),
        Triple("hand up", "dark", "hand up dark"),
    ]
    names = ["person", "person: red hair", "person: red hair, tall"]
    assert triples(names, names, ": ") == [
        Triple("person", "red hair", "person: red hair"),
        Triple("person", "red hair, tall", "person: red hair, tall"),
    ]
    assert triples(names[:1], names, " ") == []


def test_a_model_that_gives_nan_finds_nothing():
    broken = {caption: vector * np.nan if " " in caption else vector for caption, vector in (SEEN | WHOLE).items()}
    found = EVALUATOR(embed, batches(broken), encode)
    assert found["picture+words/recall_at_1"] == 0 and found["chance/recall_at_1"] == pytest.approx(1 / 15)


def test_mistakes_are_sentences():
    with pytest.raises(UserError, match="separator is empty"):
        ArithmeticEvaluator(separator="")
    with pytest.raises(UserError, match=r"no target 'captions'\. Did you mean 'caption'"):
        ArithmeticEvaluator("picture", "words", "captions")(embed, batches(SEEN), encode)
    numbers = [batch.replace(targets={"caption": batch.group}) for batch in batches(SEEN)]
    with pytest.raises(UserError, match=r"target 'caption' is int32 \[4\]; expected texts as"):
        EVALUATOR(embed, numbers, encode)
