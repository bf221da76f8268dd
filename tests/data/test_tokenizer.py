"""Tokenizers of every origin: the published recipes, round trips, and a BPE that every script survives."""

import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from mmjax.core.errors import UserError
from mmjax.data.tokenizer import CLIP, SIGLIP, SpecialTokens, Tokenizer

TEXTS = [
    "a red heart on a white table", "two red apples", "ein rotes Herz", "un cœur rouge", "赤いハート", "красное сердце",
    "قلب أحمر", "ลูกหมา", "👩‍👩‍👧 family", "ΣΊΣΥΦΟΣ",
] * 3  # fmt: skip
BPE = Tokenizer.train_bpe(TEXTS, 500)
BYTES = Tokenizer.bytes()


def clip_file() -> str:
    """Returns a tokenizer.json built as CLIP's is: lowercased BPE with </w>, start and end by a post-processor."""
    tokenizer = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|startoftext|>", "<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), end_of_word_suffix="</w>",
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(pad_id=1, length=5)
    return tokenizer.to_str()


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_bytes_and_bpe(tokenizer, text):
    text = unicodedata.normalize("NFC", text).lstrip(" ")
    ids, mask = tokenizer.encode_batch([text], 400)
    assert tokenizer.decode(ids[0]) == text
    assert mask[0].sum() == (ids[0] != tokenizer.special.pad).sum()


def test_byte_level_ids():
    ids, mask = BYTES.encode_batch(["Aé", ""], 6)
    assert ids.tolist() == [[2, 65 + 3, 0xC3 + 3, 0xA9 + 3, 1, 0], [2, 1, 0, 0, 0, 0]]
    assert mask.tolist() == [[True] * 5 + [False], [True] * 2 + [False] * 4]
    assert ids.dtype == np.int32 and BYTES.vocab_size == 259


def test_training_is_the_same_in_another_process_and_another_order():
    code = f"from mmjax.data.tokenizer import Tokenizer; print(Tokenizer.train_bpe({TEXTS[::-1]!r}, 500).to_json())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    assert found.stdout.strip() == BPE.to_json()
    assert BPE.vocab_size <= 500


def test_words_become_shorter_than_bytes():
    ids, _ = BPE.encode_batch(["a red heart on a white table"], 40)
    assert (ids[0] != 0).sum() < 12


def test_truncation_keeps_bos_and_eos():
    ids, mask = BPE.encode_batch(["a red heart on a white table " * 5], 8)
    assert ids[0, 0] == 1 and ids[0, -1] == 2 and mask.all()


def test_special_tokens_in_a_caption_are_plain_text():
    ids, _ = BPE.encode_batch(["<eos> <pad>"], 32)
    assert (ids[0] == 2).sum() == 1 and BPE.decode(ids[0]) == "<eos> <pad>"


@pytest.mark.parametrize("tokenizer", [BPE, BYTES, Tokenizer.from_json(clip_file())], ids=["bpe", "bytes", "clip"])
def test_json_round_trip(tokenizer):
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again == tokenizer and again.to_json() == tokenizer.to_json()
    for found, expected in zip(again.encode_batch(TEXTS, 12), tokenizer.encode_batch(TEXTS, 12), strict=True):
        assert (found == expected).all()
    assert json.loads(tokenizer.to_json())["special"]["eos"] == tokenizer.special.eos


def test_a_file_as_clips_gives_clips_recipe(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(clip_file(), encoding="utf-8")
    tokenizer = Tokenizer.open(path)
    assert tokenizer.special == SpecialTokens(bos=0, eos=1, pad=1)
    reference = tokenizers.Tokenizer.from_str(clip_file())
    reference.no_padding()
    reference.no_truncation()
    expected = reference.encode("Two RED apples").ids
    ids, mask = Tokenizer.open(path, SpecialTokens(bos=0, eos=1, pad=0)).encode_batch(["Two RED apples"], 20)
    assert ids[0].tolist() == expected + [0] * (20 - len(expected))
    assert mask[0].tolist() == [True] * len(expected) + [False] * (20 - len(expected))
    cut, _ = tokenizer.encode_batch(["Two RED apples"], 4)
    assert cut[0].tolist() == [*expected[:3], 1]


def test_the_published_recipes():
    assert SpecialTokens(bos=49406, eos=49407, pad=0, mask_padding=True) == CLIP
    siglip = Tokenizer(BYTES.kind, BYTES.model, SIGLIP)
    ids, mask = siglip.encode_batch(["ab", "abcdefgh"], 5)
    assert ids.tolist() == [[100, 101, 1, 1, 1], [100, 101, 102, 103, 1]] and mask.all()
    assert siglip.decode(ids[0]) == "ab"


@pytest.fixture(scope="module")
def spm_file(tmp_path_factory):
    spm = pytest.importorskip("sentencepiece")
    prefix = tmp_path_factory.mktemp("spm") / "small"
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 5), model_prefix=str(prefix), vocab_size=150, byte_fallback=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return prefix.with_suffix(".model")


def test_sentencepiece_is_its_own_library(spm_file):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(spm_file))
    tokenizer = Tokenizer.open(spm_file)
    assert tokenizer.special == SpecialTokens(eos=1, pad=0) and tokenizer.vocab_size == processor.vocab_size()
    ids, mask = tokenizer.encode_batch(TEXTS, 64)
    for row, text in enumerate(TEXTS):
        expected = [*processor.encode(text), 1]
        assert ids[row, : len(expected)].tolist() == expected and mask[row].sum() == len(expected)
    assert tokenizer.decode(ids[0]) == TEXTS[0]
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizr.json", r"no file .*tokenizr.json. Did you mean 'tokenizer.json'"),
        ("broken.json", "not JSON"),
        ("other.json", "not a tokenizer.json"),
        ("broken.model", "not a SentencePiece model"),
    ],
)
def test_mistakes_are_sentences(tmp_path, name, message):
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "broken.model").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=message):
        Tokenizer.open(tmp_path / name)


@pytest.mark.parametrize("prefix", ["B", "longer than any token"])
def test_merges_at_which_the_library_would_crash_are_a_sentence(prefix):
    stored = json.loads(Tokenizer.bytes().to_json())["model"]
    stored["model"] |= {"continuing_subword_prefix": prefix, "merges": [["à", "¸"]]}
    with pytest.raises(UserError, match=r"not a tokenizer.json .*\['à', '¸'\] does not continue a word"):
        Tokenizer.from_json(json.dumps(stored))


def test_a_panic_of_the_library_is_a_sentence():
    stored = json.loads(Tokenizer.bytes().to_json())["model"]
    pieces = [{"SpecialToken": {"id": "<none>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    stored["post_processor"] = {"type": "TemplateProcessing", "single": pieces, "pair": [], "special_tokens": {}}
    with pytest.raises(UserError, match="no entry found for key"):
        Tokenizer.from_json(json.dumps(stored))


def test_special_ids_must_be_in_the_vocabulary():
    with pytest.raises(UserError, match="eos=49407 is outside of the vocabulary of 259"):
        Tokenizer(BYTES.kind, BYTES.model, SpecialTokens(eos=49407))
    with pytest.raises(UserError, match="at least 259"):
        Tokenizer.train_bpe(TEXTS, 100)
