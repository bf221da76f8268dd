"""The captions of a whole source: a tokenizer trained on them, a view with one record for each; strings as a source."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.mixture import group_of, lacks
from mmjax.data.source import BadRecord, Record, Source, unreadable
from mmjax.data.text import TextTransform
from mmjax.data.tokenizer import Tokenizer


def captions_of(source: Source, transform: TextTransform, records: Sequence[int]) -> Iterator[list[str]]:
    """Yields the usable captions of each record; reads ahead with a few threads.

    A bad record has none, and neither has one of a part of a `Mixture` that lacks the column.

    Raises:
      UserError: a record cannot be read at all.
    """

    def read(record: int) -> list[str]:
        if lacks(source, record, transform.column):
            return []
        try:
            return transform.captions(source.read(record))
        except BadRecord:
            return []
        except OSError as error:
            raise unreadable(source, record, error) from error

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(records), 1024):
            yield from pool.map(read, records[start : start + 1024])


def caption_counts(source: Source, transform: TextTransform, records: Sequence[int]) -> np.ndarray:
    """Returns [len(records)] int64, the usable captions of each record; see `captions_of`."""
    return np.array([len(found) for found in captions_of(source, transform, records)], np.int64)


def with_trained_tokenizer(transform: TextTransform, source: Source, max_records: int = 200_000) -> TextTransform:
    """Returns transform itself where it has a tokenizer, else with a BPE trained on the source's captions.

    Args:
      transform: its column, normalisation and vocab_size decide.
      source: where the captions are.
      max_records: of a longer source, so many records at even distances are read.

    Raises:
      UserError: no record has a usable caption.
    """
    if transform.tokenizer is not None:
        return transform
    records = np.unique(np.linspace(0, len(source) - 1, min(len(source), max_records)).astype(np.int64)).tolist()
    texts = [text for captions in captions_of(source, transform, records) for text in captions]
    if not texts:
        raise UserError(f"{source.name}: none of {len(records)} records has a caption to train a tokenizer on.")
    return transform.with_tokenizer(Tokenizer.train_bpe(texts, transform.vocab_size))


@dataclasses.dataclass
class CaptionView:
    """A source with one record for each caption of another: N captions to M pictures, as retrieval is evaluated.

    Its records are the source's with one caption in place of the list; their `group` is the picture's, so that
    `Pipeline.eval_batches` over this view and over the source itself tell which caption belongs to which picture. A bad
    record has no caption here.

    Attributes:
      source: what is viewed.
      transform: whose column and normalisation say what a caption is.
      counts: [len(source)] int, the captions of each record; None reads every record once, when the view is made.
    """

    source: Source
    transform: TextTransform = dataclasses.field(default_factory=TextTransform)
    counts: np.ndarray | None = None

    def __post_init__(self) -> None:
        everything = range(len(self.source))
        counts = caption_counts(self.source, self.transform, everything) if self.counts is None else self.counts
        self.owner = np.repeat(np.arange(len(counts)), counts)  # [captions]
        self.place = np.arange(len(self.owner)) - np.repeat(np.cumsum(counts) - counts, counts)

    @property
    def several(self) -> bool:
        """Whether some record has more than one caption."""
        return bool(self.place.any())

    @property
    def name(self) -> str:
        """The source's name."""
        return f"captions of {self.source.name}"

    @property
    def columns(self) -> Sequence[str]:
        """The source's columns."""
        return self.source.columns

    def __len__(self) -> int:
        return len(self.owner)

    def read(self, index: int) -> Record:
        """Returns the record of caption index with that caption alone."""
        record = self.source.read(int(self.owner[index]))
        captions = self.transform.captions(record)
        return record | {self.transform.column: [captions[self.place[index]]]}

    def label(self, index: int) -> str:
        """Returns the record's label and the caption's number."""
        return f"{self.source.label(int(self.owner[index]))} caption {self.place[index]}"

    def group(self, index: int) -> int:
        """Returns the picture's group."""
        return group_of(self.source, int(self.owner[index]))


@dataclasses.dataclass(frozen=True)
class Texts:
    """Strings as a source of one column.

    Attributes:
      texts: the records.
      column: their column.
    """

    texts: Sequence[str]
    column: str = "caption"
    name: str = "texts"

    @property
    def columns(self) -> Sequence[str]:
        """The one column."""
        return (self.column,)

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, index: int) -> Record:
        """Returns the record of text index."""
        return {self.column: [self.texts[index]]}

    def label(self, index: int) -> str:
        """Returns the text."""
        return repr(self.texts[index])
