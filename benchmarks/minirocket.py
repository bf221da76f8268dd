"""MiniRocket on the very windows and splits of mmjax's activity data: the accuracy that configs/har.py has to reach.

    python benchmarks/minirocket.py [--dataset watch|basic_motions] [--held-out 8 9 10] [--seeds 3]

aeon's MiniRocketClassifier (10,000 features, ridge regression) with its defaults. Dempster et al., MiniRocket, 2021.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from mmjax.data.datasets.har import TEST_SUBJECTS, BasicMotionsSource, WatchSource
from mmjax.data.source import Source

SENSORS = ("accelerometer", "gyroscope")


def arrays(source: Source, columns: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the series [N, C, T] and the labels [N] of all records."""
    records = [source.read(index) for index in range(len(source))]
    series = [np.concatenate([record[column] for column in columns], axis=1).T for record in records]
    return np.stack(series), np.array([record["label"][0] for record in records])


def accuracy(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int) -> float:
    """Returns the share of test records that are classified rightly."""
    from aeon.classification.convolution_based import MiniRocketClassifier

    classifier = MiniRocketClassifier(random_state=seed).fit(*train)
    return float(np.mean(classifier.predict(test[0]) == test[1]))


def main() -> None:
    """Prints the accuracy of every seed and their mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("watch", "basic_motions"), default="watch")
    parser.add_argument("--held-out", type=int, nargs="+", default=TEST_SUBJECTS, help="people of the test split")
    parser.add_argument("--columns", nargs="+", choices=SENSORS, default=SENSORS)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    cls, settings = (
        (WatchSource, {"held_out": tuple(args.held_out)}) if args.dataset == "watch" else (BasicMotionsSource, {})
    )
    train, test = (arrays(cls(split, **settings), tuple(args.columns)) for split in ("train", "test"))
    print(f"{args.dataset}: {len(train[1]):,} training and {len(test[1]):,} test windows, {' and '.join(args.columns)}")
    found = []
    for seed in range(args.seeds):
        start = time.perf_counter()
        found.append(accuracy(train, test, seed))
        print(f"  seed {seed}: accuracy {found[-1]:.4f} ({time.perf_counter() - start:.0f} s)", flush=True)
    print(f"  mean of {len(found)}: {np.mean(found):.4f}")


if __name__ == "__main__":
    main()
