"""Human activity from a watch: accelerometer and gyroscope, from two data sets that come through pip alone.

Shoulder exercises: Burns et al., Shoulder physiotherapy exercise recognition, 2018 (https://arxiv.org/abs/1802.01489),
through the package `seglearn`. BasicMotions: https://www.timeseriesclassification.com, through the package `aeon`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.core.errors import UserError, one_of
from mmjax.data.datasets.built import BuiltSource, packages

WINDOW, HOP = 200, 50
"""Samples of a window of the exercises (4 s at 50 Hz) and from one to the next of the same recording (1 s)."""

SUBJECTS = tuple(range(1, 11))
"""The people who did the exercises."""

TEST_SUBJECTS = (8, 9, 10)
"""The people of the split `test` of the exercises, unless others are held out."""

EXERCISES = (
    *("pendulum", "abduction", "forward elevation", "internal rotation", "external rotation"),
    *("trapezius extension", "upright row"),
)
"""In the order of seglearn's classes: PEN, ABD, FEL, IR, ER, TRAP, ROW."""

MOTIONS = ("badminton", "running", "standing", "walking")
"""The classes of BasicMotions."""


def _info(builder: tfds.core.DatasetBuilder, samples: int, classes: Sequence[str], homepage: str, **more: Any) -> Any:
    features = {
        "accelerometer": tfds.features.Tensor(shape=(samples, 3), dtype=np.float32),
        "gyroscope": tfds.features.Tensor(shape=(samples, 3), dtype=np.float32),
        "label": tfds.features.ClassLabel(names=list(classes)),
        **more,
    }
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=tfds.features.FeaturesDict(features),
        homepage=homepage,
    )


class WatchExercises(tfds.core.GeneratorBasedBuilder):
    """7 shoulder exercises of 10 people with a watch: windows of 4 s at 50 Hz, each 1 s after the one before.

    140 recordings of 20 repetitions each, 4,397 windows. Features: `accelerometer` [200, 3] float32 in g, `gyroscope`
    [200, 3] float32 in rad/s, `label`, `subject` 1 to 10, `recording` its number. Splits: `subject_1` ... `subject_10`.
    """

    name = "watch_exercises"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "seglearn 1.2, windows of 200 samples, 50 apart."}  # noqa: RUF012 (as TFDS reads it)
    url_infos = None  # nothing is downloaded

    @staticmethod
    def packages() -> dict[str, Any]:
        """Returns the package the data set is built from."""
        return packages("The watch exercises", {"seglearn": "seglearn"}, "data")

    def _info(self) -> tfds.core.DatasetInfo:
        numbers = {name: tfds.features.Scalar(dtype=np.int64) for name in ("subject", "recording")}
        return _info(self, WINDOW, EXERCISES, "https://arxiv.org/abs/1802.01489", **numbers)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything comes from installed packages
        return {f"subject_{subject}": self._generate_examples(subject) for subject in SUBJECTS}

    def _generate_examples(self, subject: int) -> Iterator[tuple[str, dict[str, Any]]]:
        from seglearn.datasets import load_watch

        data = load_watch()
        for recording in np.flatnonzero(data["subject"] == subject).tolist():
            series = np.asarray(data["X"][recording], np.float32)  # [T, 6]
            for start in range(0, len(series) - WINDOW + 1, HOP):
                yield (
                    f"{recording}_{start}",
                    {
                        **_sensors(series[start : start + WINDOW]),
                        "label": int(data["y"][recording]),
                        "subject": subject,
                        "recording": recording,
                    },
                )


class BasicMotions(tfds.core.GeneratorBasedBuilder):
    """4 activities of 4 people with a watch: 10 s at 10 Hz.

    Features: `accelerometer` [100, 3] float32, `gyroscope` [100, 3] float32, `label`. Splits as published: `train` 40,
    `test` 40. Units and people are not recorded.
    """

    name = "basic_motions"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "As bundled with aeon."}  # noqa: RUF012 (as TFDS reads it)
    url_infos = None  # nothing is downloaded

    @staticmethod
    def packages() -> dict[str, Any]:
        """Returns the package the data set is built from."""
        return packages("BasicMotions", {"aeon": "aeon"}, "data")

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(
            self, 100, MOTIONS, "https://www.timeseriesclassification.com/description.php?Dataset=BasicMotions"
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything comes from installed packages
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        from aeon.datasets import load_basic_motions

        series, labels = load_basic_motions(split=split)  # [40, 6, 100]
        for number, (values, label) in enumerate(zip(series, labels, strict=True)):
            yield number, {**_sensors(values.T.astype(np.float32)), "label": str(label)}


def _sensors(series: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the two halves of [T, 6]."""
    return {"accelerometer": series[:, :3], "gyroscope": series[:, 3:]}


@dataclasses.dataclass(eq=False)
class WatchSource(BuiltSource):
    """Windows of shoulder exercises, people held out; built on first use.

    Columns: 'accelerometer' and 'gyroscope' [200, 3] float32 (50 Hz, in g and rad/s), 'label' a list of one of the 7
    EXERCISES, 'subject' and 'recording' numbers. Nobody is in both splits.

    Attributes:
      split: 'test', the people of `held_out`, or 'train', the others.
      held_out: their numbers, 1 to 10; one alone is leave-one-subject-out.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UserError: another split, a number that is nobody's, everybody held out, or a package for building is missing.
    """

    split: str = "train"
    held_out: tuple[int, ...] = TEST_SUBJECTS
    data_dir: str | None = None

    def __post_init__(self):
        one_of(self.split, ("train", "test"), "WatchSource.split")
        held_out = sorted(set(self.held_out))
        if not held_out or set(held_out) >= set(SUBJECTS) or set(held_out) - set(SUBJECTS):
            raise UserError(f"WatchSource.held_out={self.held_out!r} must be some, not all, of the people 1 to 10.")
        people = held_out if self.split == "test" else [s for s in SUBJECTS if s not in held_out]
        columns = ("accelerometer", "gyroscope", "label", "subject", "recording")
        self._open(WatchExercises, "+".join(f"subject_{subject}" for subject in people), columns, name=self.split)


@dataclasses.dataclass(eq=False)
class BasicMotionsSource(BuiltSource):
    """BasicMotions in its published split; built on first use.

    Columns: 'accelerometer' and 'gyroscope' [100, 3] float32 at 10 Hz, 'label' a list of one of the 4 MOTIONS.

    Attributes:
      split: 'train' (40 records) or 'test' (40).
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UserError: another split, or a package for building is missing.
    """

    split: str = "train"
    data_dir: str | None = None

    def __post_init__(self):
        one_of(self.split, ("train", "test"), "BasicMotionsSource.split")
        self._open(BasicMotions, self.split, ("accelerometer", "gyroscope", "label"))
