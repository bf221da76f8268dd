"""KITTI's lidar sweeps: whole ones, or the points of each labelled object."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from mmjax.core.errors import UserError, at_least, listed, nearest
from mmjax.data.source import BadRecord, Record
from mmjax.data.sources import files
from mmjax.data.sources.kitti_files import in_box, parse_box, parse_calibration, parse_points


@dataclasses.dataclass(eq=False)
class KittiSource:
    """Sweeps `velodyne/000000.bin`, with their objects in `label_2/000000.txt` and `calib/000000.txt`.

    Columns: 'points' float32 [N, 4], x ahead, y left, z up in metres, and intensity; and, where there is a folder
    label_2, 'label': list[str], the types of the sweep's objects in the order of the file, 'DontCare' left out. With
    `objects` a record is one object: the points in its box, from the box's middle along its sides, and its type.

    Attributes:
      path: the folder that holds velodyne/, or the .bin files themselves; local or fsspec (gs://, s3://).
      objects: records are labelled objects; all label files are read once, to find them.
      types: of objects, these alone, which become `classes`; none are all. Whole sweeps tell of all.
      min_points: an object with fewer is a bad record ('too_few_points').

    Raises:
      UserError: there are no sweeps, or, with `objects`, no labels, no calibration or no object of these types.
    """

    path: str
    objects: bool = False
    types: Sequence[str] = ()
    min_points: int = 1

    def __post_init__(self):
        at_least(1, "KittiSource", min_points=self.min_points)
        if isinstance(self.types, str):
            raise UserError(f"KittiSource: types must be a list of names, not {self.types!r}.")
        if not files.is_remote(self.path) and not os.path.isdir(self.path):
            raise UserError(f"The folder {self.path!r} does not exist.{files.siblings(self.path)}")
        self.name = f"kitti:{self.path}"
        there = set(files.walk(self.path))
        self._folder, self._sweeps = _sweeps(there, self.path)
        labelled = any(path.startswith("label_2/") for path in there)
        self._objects = self._found_objects(there) if self.objects else []
        self.columns = ("points", "label") if labelled else ("points",)
        self.classes = {"label": list(self.types)} if self.objects and self.types else {}
        self.found = f"{len(self._sweeps):,} sweeps" + (f", {len(self._objects):,} objects" if self.objects else "")

    def __len__(self) -> int:
        return len(self._objects) if self.objects else len(self._sweeps)

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe."""
        if self.objects:
            sweep, _, line = self._objects[index]
            return self._object(sweep, line, self.label(index))
        record: Record = {"points": self._points(self._sweeps[index])}
        if "label" in self.columns:
            record["label"] = [line.split()[0] for line in self._lines(self._sweeps[index]).values()]
        return record

    def label(self, index: int) -> str:
        """Returns the path of the sweep; of an object, its line in the label file: 'label_2/000000.txt:1'."""
        if not self.objects:
            return self._path(self._folder, self._sweeps[index], "bin")
        sweep, number, _ = self._objects[index]
        return f"{self._path('label_2', sweep, 'txt')}:{number}"

    def _object(self, sweep: str, line: str, where: str) -> Record:
        box = parse_box(line, where)
        path = self._path("calib", sweep, "txt")
        to_camera = parse_calibration(files.read(path, "missing_calibration"), path)
        points = in_box(self._points(sweep), box, to_camera)
        if len(points) < self.min_points:
            raise BadRecord("too_few_points", f"{where} has {len(points)} points; min_points is {self.min_points}.")
        return {"points": points, "label": [box.type]}

    def _points(self, sweep: str) -> np.ndarray:
        path = self._path(self._folder, sweep, "bin")
        return parse_points(files.read(path, "missing_sweep"), path)

    def _path(self, folder: str, sweep: str, suffix: str) -> str:
        return files.join(self.path, os.path.join(folder, f"{sweep}.{suffix}"))

    def _lines(self, sweep: str) -> dict[int, str]:
        """Returns number (from 1) -> line of each object of a sweep."""
        text = files.read(self._path("label_2", sweep, "txt"), "missing_label").decode("utf-8", "replace")
        lines = {number: line for number, line in enumerate(text.splitlines(), 1) if line.strip()}
        return {number: line for number, line in lines.items() if line.split()[0] != "DontCare"}

    def _found_objects(self, there: set[str]) -> list[tuple[str, int, str]]:
        """Returns (sweep, number of the line, line) of every object of the types.

        Raises:
          UserError: there is none.
        """
        for folder in ("label_2", "calib"):
            if not any(path.startswith(f"{folder}/") for path in there):
                raise UserError(f"{self.name} has no folder {folder!r}, which objects need beside their sweeps.")
        labelled = [sweep for sweep in self._sweeps if f"label_2/{sweep}.txt" in there]
        rows = [(sweep, number, line) for sweep in labelled for number, line in self._lines(sweep).items()]
        known = sorted({line.split()[0] for _, _, line in rows})
        for wanted in self.types:
            if wanted not in known:
                hint = nearest(wanted, known)
                raise UserError(f"{self.name} has no object of the type {wanted!r}.{hint} It has {listed(known)}.")
        if not rows:
            raise UserError(f"{self.name}: the label files name no object.")
        return [row for row in rows if not self.types or row[2].split()[0] in self.types]


def _sweeps(there: set[str], path: str) -> tuple[str, list[str]]:
    """Returns (folder of the sweeps, their names without ending, in order).

    Raises:
      UserError: there are none.
    """
    for folder in ("velodyne", ""):
        found = sorted(name for name in there if os.path.dirname(name) == folder and name.endswith(".bin"))
        if found:
            return folder, [os.path.splitext(os.path.basename(name))[0] for name in found]
    deeper = sorted({os.path.dirname(os.path.dirname(name)) for name in there if name.endswith(".bin")})
    hint = f" Did you mean {os.path.join(path, deeper[0])!r}?" if deeper else ""
    raise UserError(f"The folder {path!r} holds no sweeps (velodyne/*.bin or *.bin).{hint}")
