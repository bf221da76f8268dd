"""CMU-MOSI and CMU-MOSEI as people have them: word-aligned features of text, audio and vision with a sentiment each.

Written after the layouts that the SDK's and the models' own code reads; no file of the data sets themselves was at hand
to test with.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, one_of
from mmjax.data.source import BadRecord, Record
from mmjax.data.sources.mosi_files import Arrays, Sequences, opened

CLASSES = {
    2: ("negative", "non-negative"),
    3: ("negative", "neutral", "positive"),
    7: ("-3", "-2", "-1", "0", "1", "2", "3"),
}
"""Number of classes -> their names."""

MODALITIES = ("text", "audio", "vision")


@dataclasses.dataclass(eq=False)
class MosiSource:
    """Segments of opinion videos, each some words long.

    Two layouts are known, as HDF5 or as a pickle, which is read as data and never run (`plain_pickle`):
    - split -> arrays: 'text', 'audio', 'vision' [N, T, D], 'labels' or 'regression_labels' [N, ...], 'id' (MulT's
      mosei_senti_data.pkl, MMSA's aligned_50.pkl);
    - modality -> segment -> 'features' [T, D], 'intervals' (computational sequences of the SDK after alignment: a
      folder of .csd files, or all of them in one .hdf5), whose splits are lists of video ids, kept apart.

    Columns: 'text', 'audio' and 'vision' float32 [T, D], NaN where the file has NaN or an infinity; rows at either end
    in which all three are 0 are padding and cut off (each for itself where their lengths differ). 'score' float32 in
    [-3, 3]; 'label', the name of its class; 'segment' and 'video', their ids; 'caption', where the file has the words.

    Attributes:
      path: the file, or a folder of .csd files.
      split: 'train', 'valid' or 'test', as the file calls it; computational sequences have none.
      videos: a text file with the ids of the videos to read, one a line; None reads all.
      num_classes: 7 (the score rounded), 3 (negative, neutral, positive) or 2 (negative or not).
      features: column ('text', 'audio', 'vision', 'score') -> what the file calls it; those that are not given are
        guessed from the names.
      group_videos: whether the segments of a video are one group (positives of one another in contrastive losses).

    Raises:
      UserError: no such file, split or feature, another layout, or a damaged file.

    References:
      Zadeh et al., MOSI: Multimodal Corpus of Sentiment Intensity, 2016. Zadeh et al., Multimodal Language Analysis in
      the Wild: CMU-MOSEI Dataset and Interpretable Dynamic Fusion Graph, ACL 2018.
    """

    path: str
    split: str | None = None
    videos: str | None = None
    num_classes: int = 7
    features: Mapping[str, str] | None = None
    group_videos: bool = False

    def __post_init__(self):
        one_of(str(self.num_classes), map(str, CLASSES), "MosiSource.num_classes")
        self._segments: Arrays | Sequences = opened(self.path, self.split, self.features or {})
        self._kept = list(range(len(self._segments)))
        if self.videos is not None:
            wanted = _lines(self.videos)
            self._kept = [i for i in self._kept if video_of(self._segments.id(i)) in wanted]
        if not self._kept:
            raise UserError(
                f"{self.path}: there is no segment{f' of the videos in {self.videos}' * bool(self.videos)}."
            )
        names = sorted({video_of(self._segments.id(i)) for i in self._kept})
        self._video = {name: number for number, name in enumerate(names)}
        self.name = self.path if self.split is None else f"{self.path}:{self.split}"
        self.mapping = self._segments.mapping | {"label": self._segments.mapping["score"]}
        self.columns = (*self.mapping, "segment", "video")
        self.classes = {"label": list(CLASSES[self.num_classes])}
        self.found = f"{len(self._kept):,} segments of {len(names):,} videos"

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe.

        Raises:
          BadRecord: 'bad_score' for one that is not in [-3, 3]; 'wrong_shape'; 'empty_segment' where all is padding;
            'broken_hdf5' for what cannot be read, or is not there.
        """
        place, where = self._kept[index], self.label(index)
        score = _score(self._segments.read(place, "score"), where)
        features = {name: _clean(self._segments.read(place, name), name, where) for name in MODALITIES}
        segment = self._segments.id(place)
        record = _unpadded(features, where) | {"score": np.float32(score), "label": [self._class(score)]}
        if "caption" in self.mapping:
            record["caption"] = [_text(self._segments.read(place, "caption"))]
        return record | {"segment": [segment], "video": [video_of(segment)]}

    def group(self, index: int) -> int:
        """Returns the number of the segment, or of its video."""
        return self._video[video_of(self._segments.id(self._kept[index]))] if self.group_videos else index

    def label(self, index: int) -> str:
        """Returns the split and the id of the segment."""
        return f"{self.name} {self._segments.id(self._kept[index])}"

    def _class(self, score: float) -> str:
        if self.num_classes == 7:
            return CLASSES[7][int(np.round(score)) + 3]  # .5 to the even number, as all published figures have it
        if self.num_classes == 3:
            return CLASSES[3][int(np.sign(score)) + 1]
        return CLASSES[2][int(score >= 0)]


def video_of(segment: str) -> str:
    """Returns the video of a segment's id: 'abc' of 'abc[3]' (the SDK's) and of 'abc$_$3' (MMSA's)."""
    return re.sub(r"\[\d+\]$|\$_\$.*$", "", segment)


def _lines(path: str) -> set[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return {line.strip() for line in file if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"MosiSource.videos: {path} cannot be read: {error}.") from None


def _score(value: Any, where: str) -> float:
    """Returns the sentiment, the first of several labels (the others are emotions)."""
    try:
        score = float(np.asarray(value, np.float64).reshape(-1)[0])
    except (ValueError, TypeError, IndexError, OverflowError):
        raise BadRecord("bad_score", f"{where}: {str(value)[:60]!r} is no score.") from None
    if not -3 <= score <= 3:
        raise BadRecord("bad_score", f"{where}: a score of {score:g} is not in [-3, 3].")
    return score


def _clean(value: Any, name: str, where: str) -> np.ndarray:
    """Returns [T, D] float32, NaN for what is not finite."""
    try:
        found = np.asarray(value)
    except ValueError:
        raise BadRecord("wrong_shape", f"{where}: the rows of {name} differ in length, expected [T, D].") from None
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise BadRecord(
            "wrong_shape", f"{where}: {name} is {found.dtype} {list(found.shape)}, expected numbers [T, D]."
        )
    with np.errstate(over="ignore"):
        found = found.astype(np.float32)
    return np.where(np.isfinite(found), found, np.float32(np.nan))


def _unpadded(features: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """Returns the features without the rows of zeros at either end: those of all at once where they are aligned."""
    used = {name: (rows != 0).any(axis=1) for name, rows in features.items()}  # [T]
    if len({len(rows) for rows in used.values()}) == 1:
        used = dict.fromkeys(used, np.any(list(used.values()), axis=0))
    if not all(rows.any() for rows in used.values()):
        raise BadRecord("empty_segment", f"{where}: every row of the features is zero.")
    ends = {name: np.flatnonzero(rows)[[0, -1]] for name, rows in used.items()}
    return {name: rows[ends[name][0] : ends[name][1] + 1] for name, rows in features.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
