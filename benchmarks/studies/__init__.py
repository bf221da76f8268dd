"""What `benchmarks.study` can measure: for each study a config, its variants and the columns of its table."""

from __future__ import annotations

from benchmarks.studies.binding import BIND, SEMI_PAIRED
from benchmarks.studies.colearn import COLEARN
from benchmarks.studies.corrupted import ACTION, ECG, LIDAR
from benchmarks.studies.flava import FLAVA
from benchmarks.studies.fusion_study import FUSION_STUDY
from benchmarks.studies.har import HAR
from benchmarks.studies.sentiment import SENTIMENT
from benchmarks.studies.table import Study

STUDIES: dict[str, Study] = {
    "sentiment": SENTIMENT,
    "har": HAR,
    "action": ACTION,
    "ecg": ECG,
    "lidar": LIDAR,
    "fusion_study": FUSION_STUDY,
    "bind": BIND,
    "colearn": COLEARN,
    "semi_paired": SEMI_PAIRED,
    "flava": FLAVA,
}
