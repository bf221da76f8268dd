"""Exercises from a watch: every fusion, and a peer that is not of deep learning."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

from benchmarks.studies.rows import Rows, Run
from benchmarks.studies.settings import FUSIONS, fusion, only
from benchmarks.studies.table import Study
from mmjax.data.source import Source

PEOPLE = {"8 to 10": (8, 9, 10), "5 to 7": (5, 6, 7), "2 to 4": (2, 3, 4)}
WATCH = "watch, people {} held out"


def held_out(numbers: tuple[int, ...]) -> list[str]:
    """Returns the settings that train on the other people and evaluate on these."""
    sources = ("data.source.source", "evaluations.held_out.source.source")
    return [f"{source}.held_out={numbers}" for source in sources]


def minirocket(rows: Rows) -> str:
    """Measures the peer on the same windows and splits, and sets it beside the config's own fusion."""
    from benchmarks.minirocket import SENSORS, accuracy, arrays
    from mmjax.data.datasets.har import BasicMotionsSource, WatchSource

    def measured(source: Callable[[str], Source]) -> list[float]:
        train, test = (arrays(source(split), SENSORS) for split in ("train", "test"))
        return [100 * accuracy(train, test, seed) for seed in range(3)]

    watch = {
        WATCH.format(people): measured(functools.partial(WatchSource, held_out=numbers))
        for people, numbers in PEOPLE.items()
    }
    peers = watch | {"BasicMotions": measured(BasicMotionsSource)}
    each = "; ".join(
        f"{data} **{statistics.fmean(found):.1f} ± {statistics.stdev(found):.1f} %**" for data, found in peers.items()
    )
    theirs = statistics.fmean(statistics.fmean(found) for found in watch.values())
    ours = [
        100 * statistics.fmean(each[only("all")] for each in found)
        for run, found in rows
        if run.cells["fusion"] == "early" and run.cells["data"] in watch
    ]
    return (
        "aeon's MiniRocketClassifier with its defaults, on the six channels of the same windows and splits, 3 seeds: "
        f"{each}. Over the nine people held out in turn, MiniRocket has **{theirs:.1f} %** and the config's own early "
        f"fusion **{statistics.fmean(ours):.1f} %**."
    )


HAR = Study(
    "Exercises from a watch",
    """Watch: 7 shoulder exercises of 10 people (seglearn), windows of 4 s; every fusion with the people 8 to 10 held
    out (1,400 windows of 42 recordings), the config's own with two other groups too. The recipe was chosen on these two
    groups, after a first one had been seen on 8 to 10. BasicMotions: 4 activities (aeon) in the published split, 40
    records to train on and 40 held out.""",
    "configs/har.py",
    [Run({"data": WATCH.format("8 to 10"), "fusion": name}, [fusion(name)]) for name in FUSIONS]
    + [
        Run({"data": WATCH.format(people), "fusion": "early"}, held_out(PEOPLE[people]))
        for people in ("5 to 7", "2 to 4")
    ]
    + [
        Run({"data": "BasicMotions", "fusion": name}, [fusion(name)], "basic_motions")
        for name in ("early", "late: mean")
    ],
    {"both sensors": only("all"), "accelerometer only": only("accelerometer"), "gyroscope only": only("gyroscope")},
    extras=[minirocket],
)
