"""What a teacher with more modalities gives its student."""

from __future__ import annotations

from benchmarks.studies.rows import Rows, Run, beside
from benchmarks.studies.sentiment import sentiment_baselines
from benchmarks.studies.settings import only
from benchmarks.studies.table import Study


def taught_against_alone(rows: Rows) -> str:
    """Returns where a student beats the same network without a teacher, and where not."""
    findings = []
    for data, title, metric, students, baseline in TAUGHT:
        scores = {
            run.cells["student"]: [each[metric] for each in found]
            for run, found in rows
            if run.cells["data"] == data and run.cells["student"] in (*students, baseline)
        }
        for student in students:
            how = beside(scores[student], scores[baseline])
            findings.append(f"{data}, {title}: {student} {how} {baseline}")
    return f"A student beside the same network without what it was taught: {'; '.join(findings)}."


LESSONS = {
    "logits": ["task.tasks.teacher.features=0", "task.tasks.teacher.relations=0"],
    "logits, features, relations": [],
}
"""What a teacher gives -> settings."""
NO_TEACHER = ["task.weights.teacher=0", "teachers={}"]
POORER = ", from rich to poor"

_TAUGHT, _HALLUCINATED = tuple(LESSONS), ("missing sensor hallucinated",)
_POORER = tuple(f"{name}{POORER}" for name in LESSONS)
TAUGHT = (
    ("watch", "accuracy", only("all"), _TAUGHT + _POORER, "alone"),
    ("sentiment", "accuracy", "label/all/accuracy", _TAUGHT, "alone"),
    ("sentiment", "weighted F1", "label/all/weighted_f1", _TAUGHT, "alone"),
    ("watch", "accelerometer only", only("accelerometer"), _HALLUCINATED, "missing sensor missing"),
    ("watch", "gyroscope only", only("gyroscope"), _HALLUCINATED, "missing sensor missing"),
)
"""(data, title, metric, students, the same network without what they were taught)."""


def taught(data: str, size: str, teacher: str, how: str = "") -> list[Run]:
    """Returns the rows of a student of a config's size that a teacher ('FILE:SIZE') teaches."""
    return [Run({"data": data, "student": f"{name}{how}"}, sets, size, teacher) for name, sets in LESSONS.items()]


COLEARN = Study(
    "What a teacher with more modalities gives its student",
    """Watch: the teacher sees accelerometer and gyroscope, the student the gyroscope alone; people 8 to 10 held out.
    From rich to poor: the teacher sees the accelerometer alone, the student the gyroscope alone. Emoji sentiment: the
    teacher has picture, name and spoken name (synthetic), the student the name alone. The same network learns without
    its teacher beside. Hallucinated: both sensors in training, one in use, and the other one predicted; beside it the
    same model, whose missing sensor stays missing.""",
    "configs/colearn.py",
    [
        Run({"data": "watch", "student": "(the teacher)"}, file="configs/har.py"),
        Run({"data": "watch", "student": "(the teacher, accelerometer alone)"}, config="har_accelerometer"),
        Run({"data": "watch", "student": "alone"}, NO_TEACHER, "har"),
        *taught("watch", "har", "configs/har.py"),
        *taught("watch", "har_transfer", "configs/colearn.py:har_accelerometer", POORER),
        Run({"data": "watch", "student": "missing sensor hallucinated"}, [], "har_hallucinated"),
        Run({"data": "watch", "student": "missing sensor missing"}, ["model.missing=None"], "har_hallucinated"),
        Run({"data": "sentiment", "student": "(the teacher)"}, file="configs/sentiment.py"),
        Run({"data": "sentiment", "student": "alone"}, NO_TEACHER, "sentiment"),
        *taught("sentiment", "sentiment", "configs/sentiment.py"),
    ],
    {
        "watch, all that the student has": only("all"),
        "accelerometer only": only("accelerometer"),
        "gyroscope only": only("gyroscope"),
        "sentiment, accuracy": "label/all/accuracy",
        "sentiment, weighted F1": "label/all/weighted_f1",
    },
    smoke_teacher="configs/har.py:smoke",
    extras=[sentiment_baselines, taught_against_alone],
)
