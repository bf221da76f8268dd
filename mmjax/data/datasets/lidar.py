"""Synthetic lidar: sweeps of a simulated spinning sensor over simple solids, labelled with the kind of solid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data.datasets.built import BuiltSource
from mmjax.data.datasets.lidar_sweep import sweep
from mmjax.data.datasets.solids import SOLIDS

CLASSES = tuple(SOLIDS)
"""What stands before the sensor, in the order of the class numbers."""

SPLITS = {"train": 2000, "test": 500}
"""Sweeps of each split; the classes take turns."""


class SyntheticLidar(tfds.core.GeneratorBasedBuilder):
    """Simulated sweeps: `points` float32 [N, 4], x, y, z in metres from the sensor (z up) and intensity; `label`.

    50 to 400 points a sweep, of one solid of random size, aspect and pose, 4 to 10 m away in a random direction, and of
    the ground around it. Intensity, between 0 and 1, is reflectivity times the cosine of incidence. Splits come from
    disjoint seeds.
    """

    name = "synthetic_lidar"
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Ten kinds of solids."}  # noqa: RUF012 (the name and type that TFDS reads)

    url_infos = None
    """Nothing is downloaded."""

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "points": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Synthetic: a simulated spinning lidar over ten kinds of solids.",
            features=tfds.features.FeaturesDict(features),
            license="Apache-2.0",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything is simulated
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for number in range(SPLITS[split]):
            name = CLASSES[number % len(CLASSES)]
            rng = np.random.Generator(np.random.Philox(key=[list(SPLITS).index(split), number]))
            yield number, {"points": sweep(name, rng), "label": name}


@dataclasses.dataclass(eq=False)
class LidarSource(BuiltSource):
    """The synthetic lidar sweeps; built on first use.

    Columns: 'points' float32 [N, 4], see SyntheticLidar; 'label' list[str] of the one class.

    Attributes:
      split: 'train' (2,000 records), 'test' (500), or any TFDS split such as 'train[:10%]'.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.
      classes: (once made) {'label': CLASSES}.

    Raises:
      UserError: an unknown split.
    """

    split: str = "train"
    data_dir: str | None = None

    def __post_init__(self):
        self._open(SyntheticLidar, self.split, ("points", "label"), seconds=30)
