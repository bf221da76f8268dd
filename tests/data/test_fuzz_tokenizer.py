"""Whatever a tokenizer's JSON or a text holds: ids inside the vocabulary come out, or a sentence."""

import numpy as np
import pytest
from hypothesis import strategies as st

from mmjax.core.errors import UserError
from mmjax.data.source import BadRecord
from mmjax.data.text import TextTransform
from mmjax.data.tokenizer import SpecialTokens, Tokenizer
from tests.data.test_tokenizer import BPE, BYTES, clip_file, spm_file  # noqa: F401 (a fixture)
from tests.fuzzing import amounts, fuzz, json_values, mutated

CHARACTERS = st.one_of(st.characters(), st.characters(categories=["Cs", "Cc", "Mn", "Co", "Cn"]))
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=60),
    st.tuples(st.text(CHARACTERS, min_size=1, max_size=4), st.integers(1, 20_000)).map(lambda t: t[0] * t[1]),
    st.sampled_from(["", "\0", "\ud800", "\udfff\ud800", "<eos><pad>", "\ufeff", "ﷺ" * 500, "a\u0301" * 500]),
)
SPECIAL = SpecialTokens(bos=0, eos=1, pad=0)
SMALL = Tokenizer.train_bpe(["ab ab"], 260)


def encode(tokenizer: Tokenizer, texts: list[str]) -> None:
    """Encodes texts; the ids must be rows of an embedding table of vocab_size, and BOS and EOS where they belong."""
    ids, mask = tokenizer.encode_batch(texts, 8)
    assert ids.shape == mask.shape == (len(texts), 8) and ids.dtype == np.int32 and mask.dtype == np.bool_
    assert ids.size == 0 or (ids.min() >= 0 and ids.max() < tokenizer.vocab_size)
    for row in ids:
        assert isinstance(tokenizer.decode(row), str)


@amounts
@pytest.mark.parametrize("kind", ["bpe", "bytes", "clip", "sentencepiece"])
def test_any_text_is_encoded(amount, kind, request):
    made = {"bpe": lambda: BPE, "bytes": lambda: BYTES, "clip": lambda: Tokenizer.from_json(clip_file())}
    tokenizer = made[kind]() if kind in made else Tokenizer.open(request.getfixturevalue("spm_file"))
    transform = TextTransform(tokenizer=tokenizer, context_length=8)

    def check(texts: list[str]) -> None:
        try:
            encode(tokenizer, texts)
        except UserError as error:
            assert "UTF-8" in str(error) and any("\ud800" <= c <= "\udfff" for text in texts for c in text)
        try:
            stream = transform.collate([transform.prepare({"caption": texts}, None)])
        except BadRecord as error:
            assert error.kind in ("empty_caption", "bad_encoding")
        else:
            assert stream.values.shape == (1, 8)

    fuzz(amount, check, st.lists(TEXTS, max_size=3))


@amounts
@pytest.mark.parametrize("kind", ["ours", "rust"])
def test_any_json_as_a_tokenizer(amount, kind):
    text = SMALL.to_json() if kind == "ours" else clip_file()
    values = st.one_of(mutated(text), st.binary(max_size=50).map(repr), json_values.map(str))

    def check(found: str) -> None:
        for special in (None, SPECIAL):
            try:
                encode(Tokenizer.from_json(found, special), ["ab a", "", "é ナイス " * 9])
            except UserError as error:
                assert str(error)

    fuzz(amount, check, values)
