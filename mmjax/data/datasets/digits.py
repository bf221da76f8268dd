"""Handwritten digits with a spoken one each (synthetic speech), and noise in either: to study what fusions do with it.

Pictures: optdigits of the UCI repository (E. Alpaydin, C. Kaynak, 1998, CC BY 4.0), as scikit-learn ships them. Speech:
espeak-ng, synthetic.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from mmjax.core.errors import UserError, at_least
from mmjax.data.datasets.built import BuiltSource, packages
from mmjax.data.datasets.espeak import Utterance, speak_all
from mmjax.data.source import Record

RATE = 8000
"""Sample rate of the speech, in Hz."""

MAX_SAMPLES = 6400
"""0.8 s: no recording is longer."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

LANGUAGES = ("en-us", "en-us-nyc", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
"""The accents of every speaker."""

SPEAKERS = {
    "train": (
        *("f1", "f2", "f3", "m1", "m2", "m3", "m4", "m6", "m7", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Gene"),
        *("Mario", "Michael", "Reed", "adam", "aunty", "belinda", "grandpa", "klatt3", "linda", "quincy", "steph"),
    ),
    "test": ("f4", "f5", "m5", "m8", "Lee", "Mike", "boris", "grandma", "shelby", "max"),
}
"""The variants of espeak-ng that speak in each split."""

_TEST = 450  # pictures, the last of the file
_PACKAGES = {"sklearn": "scikit-learn", "soxr": "soxr", "espeakng_loader": "espeakng-loader"}


class SpokenDigits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 digits of scikit-learn, each with its name, spoken once: 1,347 in `train` and 450 in `test`.

    Features of one example: `image` PNG [8, 8, 1] uint8, white on black; `audio` int16 [<= 6400] at 8 kHz, synthetic;
    `label`; `number` the place in scikit-learn's order; `voice` the accent and speaker of espeak-ng. The splits share
    neither pictures nor speakers. `test` is the end of the file, which says nothing of its writers; their digits
    seem to follow one another. Accent, speaker, tempo and pitch are drawn for each picture by a generator that its
    number seeds.
    """

    name = "spoken_digits"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "8 kHz, espeak-ng."}  # noqa: RUF012 (the name and type that TFDS reads)
    url_infos = None

    @staticmethod
    def packages() -> dict[str, ModuleType]:
        """Returns the packages the data set is built from."""
        return packages("SpokenDigits", _PACKAGES, "data")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
            "audio": tfds.features.Audio(shape=(None,), sample_rate=RATE, dtype=np.int16),
            "label": tfds.features.ClassLabel(names=DIGITS),
            "number": tfds.features.Scalar(np.int64),
            "voice": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of scikit-learn, each with its name spoken by espeak-ng (synthetic).",
            features=tfds.features.FeaturesDict(features),
            homepage="https://archive.ics.uci.edu/dataset/80",
            license="CC BY 4.0",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything comes from installed packages
        return {split: self._generate_examples(split) for split in SPEAKERS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        self.packages()
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        numbers = numbers_of(split, len(labels))
        utterances = [drawn(DIGITS[labels[number]], split, number) for number in numbers]
        for number, utterance, speech in zip(numbers, utterances, spoken(utterances), strict=True):
            pixels = np.rint(images[number].reshape(8, 8, 1) * (255 / 16)).astype(np.uint8)
            example = {"image": pixels, "audio": speech, "label": int(labels[number])}
            yield number, example | {"number": number, "voice": utterance.voice}


def numbers_of(split: str, count: int) -> range:
    """Returns the numbers of the pictures in a split: the last 450 of so many are `test`."""
    return range(count - _TEST, count) if split == "test" else range(count - _TEST)


def drawn(digit: str, split: str, number: int) -> Utterance:
    """Returns how the digit of one picture is spoken: a function of its split and number alone."""
    rng = np.random.default_rng(number)
    voice = f"{rng.choice(LANGUAGES)}+{rng.choice(SPEAKERS[split])}"
    rate, pitch, pitch_range = (int(rng.integers(low, high)) for low, high in ((150, 230), (25, 75), (20, 80)))
    return Utterance(digit, voice, rate_wpm=rate, pitch=pitch, pitch_range=pitch_range)


def spoken(utterances: list[Utterance]) -> list[np.ndarray]:
    """Returns int16 [<= MAX_SAMPLES] samples at RATE of each, without the silence around the word."""
    import soxr

    recordings, rate = speak_all(utterances)
    return [trimmed(soxr.resample(samples, rate, RATE))[:MAX_SAMPLES] for samples in recordings]


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Returns int16 samples [S] from the first to the last above 100, or all where none is."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 100)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


@dataclasses.dataclass(eq=False)
class SpokenDigitsSource(BuiltSource):
    """Spoken digits with as much noise as is asked for; built on first use.

    Columns: 'image' PNG bytes, [8, 8] grey; 'audio' int16 [<= 6400] at 8 kHz (synthetic speech); 'label' [str],
    'zero' to 'nine'; 'number' int64, the picture's; 'voice' [str]. The noise of a record is always the same one.

    Attributes:
      split: 'train' (1,347 records), 'test' (450), or any TFDS split such as 'train[:10%]'.
      audio_snr_db: power of the speech over that of white noise added to it, in dB; None adds none. What would exceed
        16 bits is scaled down, speech and noise alike.
      image_noise: standard deviation of Gaussian noise added to the pixels, as a share of full scale; clipped to it.
      limit: of the records, the first so many; None for all.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UserError: an unknown split, a setting out of range, or a package that building needs is missing.
    """

    split: str = "train"
    audio_snr_db: float | None = None
    image_noise: float = 0.0
    limit: int | None = None
    data_dir: str | None = None

    def __post_init__(self):
        at_least(0, "SpokenDigitsSource", image_noise=self.image_noise)
        at_least(1, "SpokenDigitsSource", limit=self.limit)
        if self.audio_snr_db is not None and not math.isfinite(self.audio_snr_db):
            raise UserError(
                f"SpokenDigitsSource.audio_snr_db={self.audio_snr_db} must be finite, or None for no noise."
            )
        self._open(SpokenDigits, self.split, ("image", "audio", "label", "number", "voice"), seconds=30)

    def __len__(self) -> int:
        return min(len(self._records), self.limit or len(self._records))

    def read(self, index: int) -> Record:
        """Returns record index with its noise; thread-safe."""
        record = self._records.read(index)
        number = int(record["number"])
        if self.audio_snr_db is not None:
            record["audio"] = noisy_audio(record["audio"], self.audio_snr_db, np.random.default_rng([number, 0]))
        if self.image_noise:
            record["image"] = noisy_image(record["image"], self.image_noise, np.random.default_rng([number, 1]))
        return record


def noisy_audio(samples: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Returns int16 samples [S] with white Gaussian noise at an SNR in dB, scaled down where they would overflow."""
    speech = samples.astype(np.float64)
    power = np.mean(np.square(speech)) * 10 ** (-snr_db / 10)
    noisy = speech + np.sqrt(power) * rng.standard_normal(len(speech))  # [S]
    return np.rint(noisy * min(1.0, 32767 / max(np.abs(noisy).max(initial=0), 1))).astype(np.int16)


def noisy_image(png: bytes, sigma: float, rng: np.random.Generator) -> bytes:
    """Returns a grey PNG with Gaussian noise of standard deviation sigma * 255, clipped to [0, 255]."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)  # [H, W]
    noisy = np.clip(pixels + 255 * sigma * rng.standard_normal(pixels.shape), 0, 255)
    return cv2.imencode(".png", np.rint(noisy).astype(np.uint8))[1].tobytes()
