"""Text <-> token ids: one class over the Rust `tokenizers` library and SentencePiece, stored as JSON.

The model splits text; what stands around it (BOS, EOS, padding) is the recipe of the published model, kept in
`SpecialTokens` and not in the model's own post-processor, so that CLIP's and SigLIP's ways are two settings.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from mmjax.core.errors import UserError, listed, nearest_beside
from mmjax.core.packages import located

FORMAT = "mmjax.tokenizer/1"
_PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|endoftext|>", "</s>")


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """What stands around the tokens of a text.

    Attributes:
      bos: id put first, or None.
      eos: id put last, also where the text is cut, or None.
      pad: id that fills the row.
      mask_padding: False lets the model attend to padding, as SigLIP's does.
    """

    bos: int | None = None
    eos: int | None = None
    pad: int = 0
    mask_padding: bool = True


CLIP = SpecialTokens(bos=49406, eos=49407, pad=0)
"""OpenAI CLIP: start and end of text, zeros after. With lowercase and clean whitespace, context 77."""
SIGLIP = SpecialTokens(eos=1, pad=1, mask_padding=False)
"""SigLIP: 'sticky' EOS, kept where the text is cut, and padding equal to it, attended to. Lowercase, context 64, 16."""
BERT = SpecialTokens(bos=101, eos=102, pad=0)
"""BERT, uncased: [CLS] and [SEP] around the text, [PAD] after. Lowercase. What its tokenizer.json says itself."""


class Model(Protocol):
    """What splits text into ids, without special tokens."""

    vocab_size: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class RustModel:
    """A tokenizer.json run by the `tokenizers` library; special tokens written out in a text are plain text to it."""

    def __init__(self, text: str):
        with _refused("this JSON is not a tokenizer.json"):
            self.tokenizer = _from_str(text)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True
        self.vocab_size = max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text.

        One by one, which the library does on this thread: with more it takes those that the pipeline's threads need.
        """
        return [self.tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


class SentencePieceModel:
    """A SentencePiece .model run by its own C++ library (`pip install sentencepiece`): the original's output."""

    def __init__(self, text: str):
        try:
            import sentencepiece
        except ImportError:
            raise UserError(
                "a SentencePiece tokenizer needs the package sentencepiece: pip install sentencepiece"
            ) from None
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(text))
        except (RuntimeError, ValueError) as error:
            raise UserError(f"this is not a SentencePiece model: {error}") from None
        self.vocab_size = self.processor.vocab_size()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text."""
        return self.processor.encode(list(texts), num_threads=1)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, control symbols left out."""
        return self.processor.decode([int(i) for i in ids if not self.processor.is_control(int(i))])


_MODELS = {"tokenizers": RustModel, "sentencepiece": SentencePieceModel}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer of text, equal to another of the same JSON.

    Attributes:
      kind: 'tokenizers' or 'sentencepiece'.
      model: the tokenizer.json text, or the .model file in base64.
      special: what stands around the tokens.
    """

    kind: str
    model: str = dataclasses.field(repr=False)
    special: SpecialTokens = SpecialTokens()

    def __post_init__(self) -> None:
        if self.kind not in list(_MODELS):
            raise UserError(f"tokenizer: the kind {self.kind!r} must be one of {list(_MODELS)}.")
        if self.kind == "tokenizers":  # one text for one tokenizer, however the file was laid out
            object.__setattr__(self, "model", json.dumps(_parsed(self.model), ensure_ascii=False))
        for name in ("bos", "eos", "pad"):
            token = getattr(self.special, name)
            if type(token) is not int and (token is not None or name == "pad"):
                raise UserError(f"tokenizer: {name}={token!r} must be the id of a token.")
            if token is not None and not 0 <= token < self.vocab_size:
                raise UserError(f"tokenizer: {name}={token} is outside of the vocabulary of {self.vocab_size} tokens.")

    @functools.cached_property
    def _model(self) -> Model:
        return _MODELS[self.kind](self.model)

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding table needs: the highest id + 1."""
        return self._model.vocab_size

    def encode_batch(self, texts: Sequence[str], context_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokenises texts.

        Args:
          texts: B strings.
          context_length: N, BOS and EOS included; longer texts are cut, and keep their EOS.

        Returns:
          ids [B, N] int32 and mask [B, N] bool, False on padding (all True where padding is attended to).

        Raises:
          UserError: a text that UTF-8 cannot carry (half of a surrogate pair), or one that the model has no token for.
        """
        special = self.special
        head = [] if special.bos is None else [special.bos]
        tail = [] if special.eos is None else [special.eos]
        room = context_length - len(head) - len(tail)
        ids = np.full((len(texts), context_length), special.pad, np.int32)  # [B, N]
        mask = np.full(ids.shape, not special.mask_padding)
        for row, found in enumerate(self._encoded(texts)):
            found = head + found[:room] + tail
            ids[row, : len(found)] = found
            mask[row, : len(found)] = True
        return ids, mask

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        try:
            with _refused("a text cannot be encoded"):
                return self._model.encode(texts)
        except UserError:
            for text in texts:
                if any("\ud800" <= character <= "\udfff" for character in text):
                    raise UserError(f"tokenizer: the text {text[:80]!r} holds half a character: not UTF-8.") from None
            raise

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the text of one row of ids, up to its EOS, without BOS and padding."""
        ids = [int(i) for i in np.asarray(ids)]
        if self.special.bos is not None and ids[:1] == [self.special.bos]:
            ids = ids[1:]
        if self.special.eos in ids:
            ids = ids[: ids.index(self.special.eos)]
        while self.special.eos is None and ids and ids[-1] == self.special.pad:
            ids.pop()
        return self._model.decode(ids)

    def to_json(self) -> str:
        """Returns everything, special tokens included, as JSON text."""
        special = dataclasses.asdict(self.special)
        model = json.loads(self.model) if self.kind == "tokenizers" else self.model
        return json.dumps({"format": FORMAT, "kind": self.kind, "special": special, "model": model}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, special: SpecialTokens | None = None) -> Tokenizer:
        """Builds a tokenizer from `to_json()` or from the text of a tokenizer.json.

        Args:
          text: JSON.
          special: what stands around the tokens; None takes what the JSON says, for a tokenizer.json what its
            post-processor adds and its padding section or the name of a token says.

        Raises:
          UserError: it is neither.
        """
        value = _parsed(text)
        if isinstance(value, dict) and value.get("format") == FORMAT:
            return cls._from_ours(value, special)
        with _refused("this JSON is not a tokenizer.json"):
            return cls("tokenizers", text, special or _special_of(_from_str(text)))

    @classmethod
    def _from_ours(cls, value: dict[str, Any], special: SpecialTokens | None) -> Tokenizer:
        names = [field.name for field in dataclasses.fields(SpecialTokens)]
        stored = value.get("special")
        if "kind" not in value or "model" not in value or not isinstance(stored, dict) or set(stored) - set(names):
            raise UserError(f"tokenizer: expected JSON with kind, model, and special, an object of {listed(names)}.")
        model = value["model"]
        model = model if isinstance(model, str) else json.dumps(model, ensure_ascii=False)
        return cls(value["kind"], model, special or SpecialTokens(**stored))

    @classmethod
    def open(cls, name: str | os.PathLike[str], special: SpecialTokens | None = None) -> Tokenizer:
        """Builds a tokenizer from a file or a short name.

        Args:
          name: the path of a tokenizer.json or of a SentencePiece .model (of a file in an installed package:
            'package:NAME/inner/path'), the JSON itself, or 'bytes'.
          special: what stands around the tokens; None takes what the file says.

        Raises:
          UserError: there is no such file, or it is no tokenizer.
        """
        text = os.fspath(name)
        if text == "bytes":
            return cls.bytes() if special is None else dataclasses.replace(cls.bytes(), special=special)
        if text.lstrip().startswith("{"):
            return cls.from_json(text, special)
        path = located(text)
        if not path.is_file():
            raise UserError(f"tokenizer: there is no file {text}.{nearest_beside(path)}")
        if path.suffix != ".model":
            return cls.from_json(path.read_text(encoding="utf-8", errors="replace"), special)
        model = base64.b64encode(path.read_bytes()).decode()
        if special is None:
            special = _special_of_sentencepiece(SentencePieceModel(model).processor)
        return cls("sentencepiece", model, special)

    @classmethod
    def bytes(cls) -> Tokenizer:
        """Returns the byte level: pad 0, EOS 1, BOS 2, byte b is 3 + b (as ByT5)."""
        names = ["<pad>", "</s>", "<s>"]
        characters = _byte_characters()
        vocab = {name: place for place, name in enumerate(names + characters)}
        tokenizer = tokenizers.Tokenizer(models.BPE(vocab, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(names)
        return cls("tokenizers", tokenizer.to_str(), SpecialTokens(bos=2, eos=1, pad=0))

    @classmethod
    def train_bpe(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Trains a byte-level BPE; every text of every script survives it. The same texts give the same tokenizer.

        Args:
          texts: in any order; their counts decide alone.
          vocab_size: at most; at least the 256 bytes and the 3 special tokens.

        Returns:
          A tokenizer with pad 0, BOS 1, EOS 2.

        References:
          Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016.
        """
        names = ["<pad>", "<bos>", "<eos>"]
        if vocab_size < 256 + len(names):
            raise UserError(
                f"tokenizer: vocab_size={vocab_size} must be at least {256 + len(names)}, one for each byte."
            )
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=names,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls("tokenizers", tokenizer.to_str(), SpecialTokens(bos=1, eos=2, pad=0))


def _parsed(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises:
      UserError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"tokenizer: this is not JSON ({error}).") from None


@contextlib.contextmanager
def _refused(what: str) -> Iterator[None]:
    """Turns what the Rust library raises (plain Exception, and panics, which are none) into a sentence."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:  # a panic of Rust is no Exception; what is no panic is raised again
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"tokenizer: {what} ({error}).") from error


def _from_str(text: str) -> tokenizers.Tokenizer:
    """Returns the tokenizer of a tokenizer.json.

    Raises:
      ValueError: a merge does not fit the prefix of continued words; the Rust library would cut its text within a
        character, and end the process.
      Exception: whatever the library raises.
    """
    model = json.loads(text).get("model")
    model = model if isinstance(model, dict) else {}
    prefix, merges = model.get("continuing_subword_prefix"), model.get("merges")
    if prefix and isinstance(prefix, str) and isinstance(merges, list):
        for merge in merges:
            second = (merge.split(" ") if isinstance(merge, str) else merge or [""])[-1]
            if not str(second).startswith(prefix):
                raise ValueError(
                    f"the merge {merge!r} does not continue a word: {second!r} lacks the prefix {prefix!r}"
                )
    return tokenizers.Tokenizer.from_str(text)


def _byte_characters() -> list[str]:
    """Returns the character that stands for each byte in byte-level BPE (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(other)) for byte in range(256)]


def _special_of(tokenizer: tokenizers.Tokenizer) -> SpecialTokens:
    """Returns what a tokenizer.json's post-processor and padding section say."""
    tokenizer.no_truncation()
    padding: dict[str, Any] = tokenizer.padding or {}
    tokenizer.no_padding()
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a").ids
    start = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
    head, tail = full[:start], full[start + len(plain) :]
    if len(head) > 1 or len(tail) > 1:
        raise UserError(
            f"tokenizer: its post-processor puts {len(head)} tokens before and {len(tail)} after a text; name bos, eos "
            "and pad with SpecialTokens."
        )
    named = [found for name in _PAD_NAMES if (found := tokenizer.token_to_id(name)) is not None]
    pad = padding.get("pad_id", (named or tail or [0])[0])
    return SpecialTokens(head[0] if head else None, tail[0] if tail else None, pad)


def _special_of_sentencepiece(processor: Any) -> SpecialTokens:
    """Returns EOS where the model has one and its pad id, 0 where it has none; no BOS, as T5 and SigLIP."""
    eos = processor.eos_id()
    return SpecialTokens(eos=None if eos < 0 else eos, pad=max(processor.pad_id(), 0))
