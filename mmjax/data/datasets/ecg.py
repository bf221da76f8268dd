"""Synthetic ECG: 12 leads of a published model of the heart, in seven rhythms, of people who are drawn at random.

No recording of anyone: the signals come from data.datasets.ecg_model. Real ones are read by data.sources.wfdb.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data.datasets import ecg_model as model
from mmjax.data.datasets.built import BuiltSource

SAMPLING_RATE = 100
"""Hz."""

SECONDS = 10

RHYTHMS = (
    *("sinus rhythm", "sinus bradycardia", "sinus tachycardia", "atrial fibrillation", "atrial flutter"),
    *("first-degree AV block", "ventricular bigeminy"),
)
"""The classes."""

PATIENTS = {"train": range(1600 // 8), "test": range(1600 // 8, 2000 // 8)}
"""The people of each split; nobody is in both."""

RECORDINGS = 8
"""Of each person."""


class SyntheticEcg(tfds.core.GeneratorBasedBuilder):
    """Synthetic ECG from a model (McSharry et al. 2003; Sameni et al. 2007): 12 leads, 10 s at 100 Hz, 7 rhythms.

    A person is a way the heart lies, a size and width of each wave and an amount of noise, all drawn at random, and has
    8 recordings in different rhythms. Rates overlap: the mean heart rate tells bradycardia and tachycardia, and of
    the five other rhythms next to nothing. Features: `ecg` [1000, 12] float32 in mV, `label`, `patient`, `heart_rate`
    in beats a minute. Splits: `train`, 1,600 recordings of 200 people; `test`, 400 of 50 others.
    """

    name = "synthetic_ecg"
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 (the name and type that TFDS reads)
        "1.0.0": "Seven rhythms.",
        "2.0.0": "In bigeminy the beat from the ventricle is early and the pause follows it; it was the reverse.",
    }
    url_infos = None  # nothing is downloaded

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "ecg": tfds.features.Tensor(shape=(SECONDS * SAMPLING_RATE, len(model.LEADS)), dtype=np.float32),
            "label": tfds.features.ClassLabel(names=list(RHYTHMS)),
            "patient": tfds.features.Scalar(dtype=np.int64),
            "heart_rate": tfds.features.Scalar(dtype=np.float32),
        }
        return tfds.core.DatasetInfo(
            builder=self, description=type(self).__doc__, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # everything is computed here
        return {split: self._generate_examples(people) for split, people in PATIENTS.items()}

    def _generate_examples(self, people: range) -> Iterator[tuple[str, dict[str, Any]]]:
        for patient in people:
            for recording in range(RECORDINGS):
                yield f"{patient}_{recording}", simulate(patient, recording)


def simulate(patient: int, recording: int) -> dict[str, Any]:
    """Returns a recording of a person: the same one for the same two numbers."""
    person, rng = np.random.default_rng((0, patient)), np.random.default_rng((1, patient, recording))
    label = (patient * RECORDINGS + recording) % len(RHYTHMS)
    time = np.arange(SECONDS * SAMPLING_RATE) / SAMPLING_RATE  # [T]
    amplitudes, turn = _heart(person)
    beats, atria = rhythm(RHYTHMS[label], time, rng)
    moved = (model.dipole(beats, time, amplitudes) + atria) @ turn.T  # [T, 3]
    ecg = moved @ model.lead_matrix().T + model.noise(time, person.uniform(0.5, 1.5), rng)  # [T, 12]
    seen = beats.peaks[(beats.peaks >= 0) & (beats.peaks < SECONDS)]
    rate = 60 * (len(seen) - 1) / (seen[-1] - seen[0])
    return {"ecg": ecg.astype(np.float32), "label": label, "patient": patient, "heart_rate": np.float32(rate)}


def _heart(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns a person's amplitudes [5, 3] of the waves, and the rotation [3, 3] of their heart."""
    amplitudes = model.DIPOLE * rng.uniform(0.7, 1.3, (5, 1)) * rng.uniform(0.85, 1.15, (5, 3)) * rng.uniform(0.7, 1.3)
    turn = np.eye(3)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = rng.normal(0.0, np.deg2rad(12))
        plane = np.eye(3)
        plane[[first, second], [first, second]] = np.cos(angle)
        plane[first, second], plane[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ plane
    return amplitudes, turn


def rhythm(name: str, time: np.ndarray, rng: np.random.Generator) -> tuple[model.Beats, np.ndarray]:
    """Returns the beats of a rhythm, and the dipole [T, 3] of what the atria do by themselves."""
    quiet = np.zeros((len(time), 3))
    if name == "atrial fibrillation":
        rate = rng.uniform(60, 140)
        gaps = np.maximum(60 / rate * (1 + rng.uniform(0.15, 0.25) * rng.standard_normal(60)), 0.3)
        waves = model.atrial_waves(time, rng.uniform(4, 8), rng.uniform(0.03, 0.1), rng.uniform(0.1, 0.3), rng)
        return model.Beats(_peaks(gaps, rng), rate, atrial=np.nan), waves
    if name == "atrial flutter":
        atria, conducted = rng.uniform(240, 330), int(rng.integers(2, 5))  # teeth a minute, teeth a beat
        rate = atria / conducted
        waves = model.atrial_waves(time, atria / 60, rng.uniform(0.08, 0.2), 0.0, rng)
        return model.Beats(_peaks(np.full(60, 60 / rate), rng), rate, atrial=np.nan), waves
    low, high = {"sinus bradycardia": (38, 55), "sinus tachycardia": (105, 150)}.get(name, (62, 95))
    rate = rng.uniform(low, high)
    gaps = model.intervals(60, 60 / rate, rng.uniform(0.01, 0.05), rng)
    if name == "first-degree AV block":  # P to R peak; else the model's angle gives 0.08 to 0.23 s
        return model.Beats(_peaks(gaps, rng), rate, atrial=min(rng.uniform(0.24, 0.34), 0.42 * 60 / rate)), quiet
    if name != "ventricular bigeminy":
        return model.Beats(_peaks(gaps, rng), rate), quiet
    early = rng.uniform(0.5, 0.65)  # every other beat, and the pause that makes up for it
    ventricular = np.arange(60) % 2 == 1
    gaps = np.where(ventricular, early, 2 - early) * gaps
    return model.Beats(_peaks(gaps, rng), rate, ventricular=ventricular), quiet


def _peaks(gaps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the R peaks of beats [N] where gaps[i] lies before beat i; the first comes before the recording."""
    return np.cumsum(gaps) - gaps[0] - 3.0 * rng.uniform(0.5, 1.0)


@dataclasses.dataclass(eq=False)
class SyntheticEcgSource(BuiltSource):
    """Synthetic ECG recordings, people held out; built on first use.

    Columns: 'ecg' [1000, 12] float32 in mV at 100 Hz (`leads` names its channels), 'label' a list of one of the
    RHYTHMS, 'patient' a number, 'heart_rate' in beats a minute.

    Attributes:
      split: 'train' (1,600 records), 'test' (400, of other people), or any TFDS split such as 'train[:10%]'.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UserError: an unknown split.
    """

    split: str = "train"
    data_dir: str | None = None

    def __post_init__(self):
        self._open(SyntheticEcg, self.split, ("ecg", "label", "patient", "heart_rate"), seconds=20)
        self.leads = model.LEADS
