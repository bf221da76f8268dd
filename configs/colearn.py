"""A student with fewer modalities learns from a multimodal teacher, and is judged by what it has alone.

python train.py --config configs/har.py --workdir runs/har                                  # the teacher
python train.py --config configs/colearn.py --workdir runs/student                          # a gyroscope alone
python train.py --config configs/colearn.py --workdir runs/alone --set task.weights.teacher=0 # without its teacher

Sizes: 'har' (of accelerometer and gyroscope the gyroscope stays), 'sentiment' (of picture, name and spoken name the
name stays), 'har_transfer' (the teacher knows the accelerometer alone, its student the gyroscope alone: from a rich
modality to a poor one), 'har_hallucinated' (both sensors in training, and the one that is missing in use is predicted),
'smoke' (a teacher with random weights, seconds). The teacher of 'har_transfer' is its own size, 'har_accelerometer':

python train.py --config configs/colearn.py:har_accelerometer --workdir runs/har_accelerometer
python train.py --config configs/colearn.py:har_transfer --workdir runs/transfer
"""

import pathlib

import fiddle as fdl

from mmjax.core.config import load_config
from mmjax.core.errors import one_of
from mmjax.decoders.head import Head
from mmjax.fusion.hallucination import Hallucination
from mmjax.tasks.distillation import Distillation
from mmjax.tasks.multi import MultiTask
from mmjax.training.checkpoint import InitFrom

STUDIES = {
    "har": ("har.py", ("gyroscope",), None, "runs/har"),
    "har_transfer": ("har.py", ("gyroscope",), ("accelerometer",), "runs/har_accelerometer"),
    "sentiment": ("sentiment.py", ("text",), None, "runs/sentiment"),
    "smoke": ("har.py:smoke", ("gyroscope",), None, None),
}
"""Size -> the teacher's config, what its student keeps of the modalities, what the teacher itself has (None: all of
them), and the teacher's run."""


def get_config(size: str = "har") -> fdl.Config:
    """Returns the student's experiment; see the sizes above."""
    one_of(size, (*STUDIES, "har_accelerometer", "har_hallucinated"), "configs/colearn.py")
    folder = pathlib.Path(__file__).parent
    if size in ("har_accelerometer", "har_hallucinated"):
        config = load_config(str(folder / "har.py"))
        return hallucinated(config) if size == "har_hallucinated" else alone(config, ("accelerometer",))
    name, kept, known, run = STUDIES[size]
    config = load_config(str(folder / name))
    teacher = alone(fdl.deepcopy_with(config), known) if known else config
    return student(config, kept, teacher.model, run)


def alone(config: fdl.Config, kept: tuple[str, ...]) -> fdl.Config:
    """Returns config with the modalities `kept` alone."""
    config.data.transforms = {name: config.data.transforms[name] for name in kept}
    keep_encoders(config.model, kept)
    return config


def keep_encoders(model: fdl.Config, kept: tuple[str, ...]) -> None:
    """Leaves model the encoders of `kept` alone, none of which is dropped."""
    model.encoders = {name: model.encoders[name] for name in kept}
    model.modality_dropout = {}


def student(config: fdl.Config, kept: tuple[str, ...], teacher: fdl.Config, run: str | None) -> fdl.Config:
    """Returns the config of a student of the modalities `kept`, taught by the model `teacher` as `run` trained it."""
    teacher = fdl.deepcopy_with(teacher)
    model = config.model
    keep_encoders(model, kept)
    model.decoders["hint"] = fdl.Config(Head, next(iter(teacher.encoders.values())).width, "values")
    model.teachers = {"teacher": teacher}
    taught = fdl.Config(Distillation, projection="hint", features=1.0, relations=1.0)
    if fdl.get_callable(config.task) is MultiTask:
        config.task.tasks["teacher"] = taught
        model.scalars |= {"log_variance/teacher": 0.0} if config.task.uncertainty else {}
    else:
        config.task = fdl.Config(MultiTask, {"label": config.task, "teacher": taught})
    config.task.weights = {"teacher": 1.0}
    config.teachers = {"teacher": fdl.Config(InitFrom, run)} if run else {}
    return config


def hallucinated(config: fdl.Config) -> fdl.Config:
    """Returns config with what is missing predicted, and hidden often enough in training for that to be of use."""
    width = next(iter(config.model.encoders.values())).width
    config.model.missing = fdl.Config(Hallucination, width, 2 * width)
    config.model.modality_dropout = dict.fromkeys(config.model.encoders, 0.3)
    return config
