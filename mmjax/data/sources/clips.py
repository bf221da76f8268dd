"""Folders of labelled clips: as UCF101, as Kinetics, or simply one folder a class."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import os
import re
from collections.abc import Iterator
from typing import ClassVar

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.source import BadRecord, Record
from mmjax.data.sources import files

SUFFIXES = (".avi", ".mp4", ".webm", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".ogv", ".gif")
"""Endings of the files that are clips."""

SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
"""What data sets call their splits."""

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
"""What a line of Kinetics' CSV must have."""

_UCF = re.compile(r"v_(?P<name>\w+)_g(?P<group>\d+)_c\d+$")
_KINETICS = re.compile(r"(?P<id>.+)_\d{6}_\d{6}$")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One clip: its path from the folder, its class, its split, and what must not be cut in two by a split."""

    path: str
    name: str
    split: str
    group: str


@dataclasses.dataclass(eq=False)
class ClipFolderSource:
    """Clips with the names of their classes. Which layout it is shows in the folder:

    - UCF101: clips named v_CLASS_gXX_cYY, one folder a class. The split is that of the official lists
      `ucfTrainTestlist/trainlist0N.txt` and `testlist0N.txt`, beside the clips or one folder above, where they exist;
      else the groups that those lists hold out (fold 1: 1 to 7, fold 2: 8 to 14, fold 3: 15 to 21).
    - Kinetics: `annotations` is a CSV with label, youtube_id, time_start, time_end and split; the files, anywhere in
      the folder, are ID_000010_000020.mp4. Without a CSV, one folder a split (train, val, test) with one a class.
    - one folder a class, without splits: split is 'all'.

    No group is in two splits: clips of a group (UCF101) or a video (Kinetics, or ID_000010_000020 in a folder a split)
    of which others are in a later split are left out, in the order train, val, others by name, test. What is listed and
    not there is left out too; `found` counts both.

    Columns: 'video' encoded bytes; 'label' [the class]; 'caption' [the class in words].

    Attributes:
      path: the folder, local or fsspec.
      split: 'train', 'val', 'test' or 'all'.
      fold: of UCF101's three splits.
      annotations: path of the CSV.
      classes: (once made) {'label': names of the classes, sorted}, of all splits.

    Raises:
      UserError: the folder, the CSV, its columns, the split or all of the clips do not exist, a list is damaged, or
        nothing is left of the split.
    """

    how: ClassVar[str] = (
        "A folder of clips has one folder a class (UCF101 as it is unpacked), or train, val and test with one a class "
        "each; Kinetics' CSV is given as ClipFolderSource(annotations=...)."
    )

    path: str
    split: str = "train"
    fold: int = 1
    annotations: str | None = None

    def __post_init__(self):
        if not files.is_remote(self.path) and not os.path.isdir(self.path):
            raise UserError(f"The folder {self.path!r} does not exist.{files.siblings(self.path)}")
        there = [path for path in files.walk(self.path) if os.path.splitext(path)[1].lower() in SUFFIXES]
        if not there:
            raise UserError(f"{self.path}: there is no clip ({listed(SUFFIXES)}) in this folder or those below it.")
        listing, self._missing = self._entries(there)
        self._chosen, self._leaking = _split(listing, SPLITS.get(self.split, self.split), self.path)
        self.name = f"{self.path}:{self.split}"
        self.columns = ("video", "label", "caption")
        self.classes = {"label": sorted({entry.name for entry in listing})}
        self.found = self._found(len(there))
        if self._missing or self._leaking:
            _log.warning("%s: %s", self.name, self.found)

    def _entries(self, there: list[str]) -> tuple[list[Entry], list[str]]:
        """Returns (what is there, the paths that are listed and not there)."""
        if self.annotations is not None:
            return _kinetics(self.annotations, there)
        if all(_UCF.match(_stem(path)) for path in there):
            return _ucf(self.path, there, self.fold)
        return _folders(there), []

    def _found(self, there: int) -> str:
        told = f"{len(self._chosen):,} clips of {len(self.classes['label'])} classes, of {there:,} files"
        if self._missing:
            told += f"; {len(self._missing):,} listed clips are not there ({listed(self._missing, 3)})"
        if self._leaking:
            told += f"; {self._leaking:,} left out, whose group is in a held-out split too"
        return told

    def __len__(self) -> int:
        return len(self._chosen)

    def read(self, index: int) -> Record:
        """Returns record index, the clip still encoded; thread-safe."""
        data = files.read(self.label(index), "missing_video")
        if not data:
            raise BadRecord("empty_file", f"{self.label(index)} has 0 bytes.")
        name = self._chosen[index].name
        return {"video": data, "label": [name], "caption": [words(name)]}

    def label(self, index: int) -> str:
        """Returns the path of the clip."""
        return files.join(self.path, self._chosen[index].path)


def words(name: str) -> str:
    """Returns 'apply eye makeup' of 'ApplyEyeMakeup', 'riding a bike' of 'riding_a_bike'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _split(listing: list[Entry], split: str, where: str) -> tuple[list[Entry], int]:
    """Returns (the clips of a split, how many are left out because their group is in a later one, held out)."""
    splits = sorted({entry.split for entry in listing})
    if split == "all":
        return listing, 0
    if split not in splits:
        raise UserError(f"{where} has no split {split!r}: it has {listed([*splits, 'all'])}.{nearest(split, splits)}")
    chosen = [entry for entry in listing if entry.split == split]
    later = [name for name in splits if name != "all" and _order(name) > _order(split)]
    held_out = {entry.group for entry in listing if entry.split in later}
    kept = [entry for entry in chosen if entry.group not in held_out]
    if not kept:
        raise UserError(
            f"{where}: nothing is left of {split!r}, as each of its {len(chosen)} clips has others of its group in "
            f"{listed(later)}; the first is {chosen[0].path}, of the group {chosen[0].group!r}."
        )
    return kept, len(chosen) - len(kept)


def _order(split: str) -> tuple[int, str]:
    return {"train": 0, "val": 1, "test": 3}.get(split, 2), split


def _folders(there: list[str]) -> list[Entry]:
    """Returns SPLIT/CLASS/clip or CLASS/clip; clips of a video (ID_000010_000020) are a group, any other is one."""
    entries = []
    for path in there:
        *folders, _ = path.split("/")
        if not folders:
            raise UserError(f"{path} is in no folder of a class. {ClipFolderSource.how}")
        split = SPLITS.get(folders[0].lower(), "all") if len(folders) > 1 else "all"
        part = _KINETICS.match(_stem(path))
        entries.append(Entry(path, folders[-1], split, part["id"] if part else path))
    return entries


def _ucf(root: str, there: list[str], fold: int) -> tuple[list[Entry], list[str]]:
    """Returns the clips of UCF101 by the official lists, or by their groups where there are no lists."""
    if fold not in (1, 2, 3):
        raise UserError(f"ClipFolderSource.fold={fold} must be 1, 2 or 3: UCF101 has three splits.")
    found = {_stem(path): path for path in there}
    lists = _ucf_lists(root, fold)
    if lists is None:
        held_out = range(7 * fold - 6, 7 * fold + 1)
        lists = [(name, "test" if int(_UCF.match(name)["group"]) in held_out else "train") for name in found]
    entries = []
    for name, split in lists:
        if name in found and (match := _UCF.match(name)):
            entries.append(Entry(found[name], match["name"], split, f"{match['name']}_g{match['group']}"))
    if not entries:
        raise UserError(f"{root}: none of the {len(lists)} clips of ucfTrainTestlist, fold {fold}, is there.")
    return entries, [name for name, _ in lists if name not in found]


def _ucf_lists(root: str, fold: int) -> list[tuple[str, str]] | None:
    """Returns (clip, split) of the official lists ('CLASS/v_CLASS_g01_c01.avi 1' a line), None where there are none."""
    for folder in ("ucfTrainTestlist", "../ucfTrainTestlist"):
        paths = {split: files.join(root, f"{folder}/{split}list{fold:02d}.txt") for split in ("train", "test")}
        if all(files.is_file(path) for path in paths.values()):
            texts = {split: _text(path) for split, path in paths.items()}
            lines = [(line.split(), split) for split, text in texts.items() for line in text.splitlines()]
            return [(_stem(line[0]), split) for line, split in lines if line]
    return None


def _text(path: str) -> str:
    data = files.read(path, "missing_list")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise UserError(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8.") from None


def _kinetics(annotations: str, there: list[str]) -> tuple[list[Entry], list[str]]:
    """Returns the clips of a Kinetics CSV that are there, and the names of those that are not."""
    try:
        text = _text(annotations)
    except BadRecord:
        raise UserError(f"The CSV {annotations!r} does not exist.{files.siblings(annotations)}") from None
    found, entries, missing = {_stem(path): path for path in there}, [], []
    for clip, row in _kinetics_rows(annotations, text):
        split = SPLITS.get(row["split"].strip().lower(), row["split"])
        if clip in found:
            entries.append(Entry(found[clip], row["label"].strip(), split, row["youtube_id"]))
        else:
            missing.append(clip)
    if not entries:
        raise UserError(f"{annotations}: none of its {len(missing)} clips is there; the first is {missing[:1]}.")
    return entries, missing


def _kinetics_rows(path: str, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields (name of the clip, row) of a Kinetics CSV.

    Raises:
      UserError: a column is missing, or a line is damaged.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        lacking = [name for name in KINETICS_COLUMNS if name not in (rows.fieldnames or ())]
        if lacking:
            raise UserError(
                f"{path}: the columns {listed(lacking)} are missing; it has {listed(rows.fieldnames or ())}."
            )
        for row in rows:
            cut = [name for name in KINETICS_COLUMNS if row[name] is None]
            if cut:
                raise UserError(f"{path}: line {rows.line_num} is cut short: it has no {listed(cut)}.")
            try:
                start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
            except (ValueError, OverflowError):
                raise UserError(f"{path}: line {rows.line_num} has no times in seconds: {row}.") from None
            yield f"{row['youtube_id']}_{start:06d}_{end:06d}", row
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.reader.line_num} is no line of a CSV: {error}.") from None
