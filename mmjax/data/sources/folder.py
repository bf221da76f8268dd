"""A folder of pictures, each with a text file of the same name."""

from __future__ import annotations

import dataclasses
import os
from typing import ClassVar

from mmjax.core.errors import UserError
from mmjax.data.source import Record
from mmjax.data.sources import columns as columns_lib
from mmjax.data.sources import files


@dataclasses.dataclass(eq=False)
class FolderSource:
    """The pictures in a folder and the folders below it, in the order of their paths.

    'cat.jpg' has its captions in 'cat.txt', one a line. Where no picture at all has a text file, there is no column
    'caption'; else a picture without one is a bad record ('missing_caption'). Text files without a picture are left
    out and counted in `found`. Hidden files and folders, and links to folders, are not followed.

    Attributes:
      path: the folder, local or fsspec (gs://, s3://).

    Raises:
      UserError: it does not exist.
    """

    how: ClassVar[str] = (
        f"A folder has pictures (.{', .'.join(columns_lib.IMAGE_SUFFIXES)}), each with its captions in the .txt file "
        "of the same name, one caption a line."
    )

    path: str

    def __post_init__(self):
        if not files.is_remote(self.path) and not os.path.isdir(self.path):
            raise UserError(f"The folder {self.path!r} does not exist.{files.siblings(self.path)}")
        self.name = self.path
        images, texts, others = _sorted_out(self.path)
        stems = [os.path.splitext(image)[0] for image in images]
        self._images = images
        self._texts = [texts.get(stem, f"{stem}.txt") for stem in stems]
        paired = sum(stem in texts for stem in stems)
        alone = len(texts.keys() - set(stems))
        self.mapping = {"image": "pictures"} if images else {}
        if paired:
            self.mapping["caption"] = "the lines of the .txt file of the same name"
        self.columns = tuple(self.mapping)
        self.found = f"{len(images):,} pictures, {paired:,} of them with a .txt file of the same name"
        if alone:
            self.found += f"; {alone:,} .txt files without a picture, left out"
        if others:
            self.found += f"; {others:,} other files, left out"

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe."""
        path = self.label(index)
        record: Record = {}
        if "caption" in self.columns:
            text = files.join(self.path, self._texts[index])
            lines = files.read(text, "missing_caption").split(b"\n")
            record["caption"] = columns_lib.captions(lines, text)
        return {"image": columns_lib.image(files.read(path, "missing_image"), path)} | record

    def label(self, index: int) -> str:
        """Returns the path of the picture."""
        return files.join(self.path, self._images[index])


def _sorted_out(root: str) -> tuple[list[str], dict[str, str], int]:
    """Returns (pictures, stem -> text file, how many other files), paths from `root`."""
    images, texts, others = [], {}, 0
    for path in files.walk(root):
        stem, suffix = os.path.splitext(path)
        kind = suffix[1:].lower()
        if kind in columns_lib.IMAGE_SUFFIXES:
            images.append(path)
        elif kind == "txt":
            texts[stem] = path
        else:
            others += 1
    return images, texts, others
