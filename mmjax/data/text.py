"""Captions: text -> token ids."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.data.source import BadRecord, Record
from mmjax.data.tokenizer import SpecialTokens, Tokenizer
from mmjax.data.transform import ArraySpec, get_column, spec_of


@dataclasses.dataclass(frozen=True)
class TextTransform:
    """Captions -> token ids: one of a record's captions by chance in training, its first in evaluation.

    Attributes:
      column: of the record, a str or a list of str.
      tokenizer: a Tokenizer, the path of a tokenizer.json or a SentencePiece .model (or 'package:NAME/inner/path' of an
        installed package), 'bytes' for the byte level, or None where one is still to be trained
        (`data.captions.with_trained_tokenizer`).
      context_length: N, tokens of a row.
      lowercase: lowercase before tokenising.
      clean: join runs of whitespace to one space and strip the ends.
      vocab_size: of the BPE that is trained where tokenizer is None.
      special: what stands around the tokens (`tokenizer.CLIP`, `SIGLIP`, `BERT`); None keeps the tokenizer's own. It
        becomes part of the tokenizer.
    """

    column: str = "caption"
    tokenizer: Tokenizer | str | None = None
    context_length: int = 64
    lowercase: bool = True
    clean: bool = True
    vocab_size: int = 8192
    special: SpecialTokens | None = None

    def __post_init__(self) -> None:
        if self.context_length < 2:
            raise UserError(f"TextTransform.context_length={self.context_length} must be at least 2.")
        if isinstance(self.tokenizer, str):
            object.__setattr__(self, "tokenizer", Tokenizer.open(self.tokenizer, self.special))
        if self.special is None:
            return
        if self.tokenizer is None:
            raise UserError("TextTransform.special is for a tokenizer that is named; a trained one has its own.")
        object.__setattr__(self, "tokenizer", dataclasses.replace(self.tokenizer, special=self.special))
        object.__setattr__(self, "special", None)

    def with_tokenizer(self, tokenizer: Tokenizer) -> TextTransform:
        """Returns a copy that uses tokenizer."""
        return dataclasses.replace(self, tokenizer=tokenizer)

    def out_spec(self) -> dict[str, ArraySpec]:
        """Returns the spec of values [N] int32 and mask [N] bool."""
        return {"values": ((self.context_length,), np.int32), "mask": ((self.context_length,), np.bool_)}

    def normalize(self, text: str) -> str:
        """Returns text lowercased and with its whitespace cleaned, as set."""
        text = " ".join(text.split()) if self.clean else text
        return text.lower() if self.lowercase else text

    def captions(self, record: Record) -> list[str]:
        """Returns every usable caption of a record, normalised.

        Raises:
          BadRecord: 'empty_caption' where none has a visible character, 'bad_encoding' where one is not UTF-8.
        """
        value = get_column(record, self.column)
        texts = [value] if isinstance(value, str | bytes) else list(value)
        found = [text for text in map(self.normalize, map(as_text, texts)) if text.strip()]
        if not found:
            raise BadRecord("empty_caption", f"none of the {len(texts)} captions has a visible character.")
        return found

    def prepare(self, record: Record, rng: np.random.Generator | None) -> str:
        """Returns one caption: uniformly drawn by rng, or the first."""
        captions = self.captions(record)
        return captions[0 if rng is None else int(rng.random() * len(captions))]

    def collate(self, prepared: Sequence[str | None]) -> Stream:
        """Returns values [B, N] int32 and mask [B, N], all False for a missing caption."""
        values, mask = self.encode([text or "" for text in prepared])
        missing = np.array([text is None for text in prepared], np.bool_)
        return Stream(np.where(missing[:, None], 0, values), mask & ~missing[:, None])

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids [B, N] int32 and mask [B, N] bool of normalised texts."""
        if self.tokenizer is None:
            raise UserError(
                f"TextTransform for the column {self.column!r} has no tokenizer: name one, or train one with "
                "mmjax.data.captions.with_trained_tokenizer."
            )
        return self.tokenizer.encode_batch(texts, self.context_length)

    def from_texts(self, texts: Sequence[str]) -> Stream:
        """Returns the stream of raw texts, normalised as training did; an empty text is only its special tokens."""
        values, mask = self.encode([self.normalize(text) for text in texts])
        return Stream(values, mask)

    def spec(self) -> dict[str, Any]:
        """Returns the settings as JSON-able values, the tokenizer in full."""
        return spec_of(self, tokenizer=None if self.tokenizer is None else self.tokenizer.to_json())


def as_text(value: Any) -> str:
    """Returns a str that UTF-8 can carry, from str or bytes.

    Raises:
      BadRecord: 'bad_encoding'.
    """
    try:
        text = bytes(value).decode("utf-8") if isinstance(value, bytes) else str(value)
        text.encode("utf-8")
    except UnicodeError as error:
        raise BadRecord("bad_encoding", f"a caption is not UTF-8: {error.reason}.") from None
    return text
