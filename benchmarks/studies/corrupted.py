"""Synthetic clips, and synthetic signals and sweeps of which a part is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.studies.pictures import Curve
from benchmarks.studies.rows import Run
from benchmarks.studies.settings import only
from benchmarks.studies.table import Study


def lost(evaluation: str, shares: Sequence[float]) -> dict[float, str]:
    """Returns percentage -> metric of a RobustnessEvaluator's accuracies."""
    return {100 * share: f"{evaluation}/lost {100 * share:g} %/accuracy" for share in shares}


def titled(points: Mapping[float, str]) -> dict[str, str]:
    """Returns the columns of a curve's points."""
    return {f"{percent:g} % lost": metric for percent, metric in points.items()}


LONGER = "duration=1000 steps"

ACTION = Study(
    "Moving emoji",
    """Synthetic clips of 8 frames: an emoji moves over a canvas in one of 8 ways, each with its reversal, so that the
    frames without their order say next to nothing. 367 emoji are held out. Chance is 12.5 %.""",
    "configs/action.py",
    [
        Run({"attention": name}, [f"model.encoders.video.attention={kind}", *more])
        for name, kind, *more in (
            ("mean of frames", "frames"),
            ("joint space-time, tubelets of 2, 1,000 steps", "joint", "model.encoders.video.tubelet_size=2", LONGER),
            ("factorised encoder", "factorised"),
            ("divided space-time", "divided"),
        )
    ],
    {"accuracy": only("all")},
    seeds=1,
)

LEADS_LOST = lost("leads", (0.0, 0.25, 0.5, 0.75, 0.92))

ECG = Study(
    "Rhythms of the heart, with leads missing",
    """Synthetic 12-lead electrocardiograms (the model of McSharry et al. 2003), 10 s at 100 Hz, 7 rhythms; 1,600 of 200
    people to train on, 400 of 50 others held out. The columns lose leads at random, other ones in every record.""",
    "configs/ecg.py",
    [
        Run({"in training": "all leads"}, ["data.transforms.ecg.channel_dropout=0.0"]),
        Run({"in training": "up to 90 % of the leads missing"}),
    ],
    titled(LEADS_LOST),
    curve=Curve("leads lost, %", LEADS_LOST),
)

POINTS_LOST = lost("points", (0.0, 0.25, 0.5, 0.75, 0.9))

LIDAR = Study(
    "Shapes in sparse lidar sweeps, with points lost",
    """Synthetic sweeps of 50 to 400 points of 10 shapes; 2,000 to train on, 500 held out. The columns lose points at
    random.""",
    "configs/lidar.py",
    [
        Run({"in training": "all points"}, ["data.transforms.points.dropout=0.0"]),
        Run({"in training": "up to 80 % of the points dropped"}),
    ],
    titled(POINTS_LOST),
    curve=Curve("points lost, %", POINTS_LOST),
)
