"""A student with fewer modalities learns from a multimodal teacher, and is judged by what it has alone.

python train.py --config configs/har.py --workdir runs/har                                  # the teacher
python train.py --config configs/colearn.py --workdir runs/student                          # a gyroscope alone
python train.py --config configs/colearn.py --workdir runs/alone --set task.weights.teacher=0 # without its teacher

Sizes: 'har' (of accelerometer and gyroscope the gyroscope stays), 'sentiment' (of picture, name and spoken name the
name stays), 'har_hallucinated' (both sensors in training, and the one that is missing in use is predicted), 'smoke' (a
teacher with random weights, seconds).
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
    "har": ("har.py", ("gyroscope",), "runs/har"),
    "sentiment": ("sentiment.py", ("text",), "runs/sentiment"),
    "smoke": ("har.py:smoke", ("gyroscope",), None),
}
"""Size -> the teacher's config, what its student keeps of the modalities, and the teacher's run."""


def get_config(size: str = "har") -> fdl.Config:
    """Returns the student's experiment; see the sizes above."""
    one_of(size, (*STUDIES, "har_hallucinated"), "configs/colearn.py")
    folder = pathlib.Path(__file__).parent
    if size == "har_hallucinated":
        return hallucinated(load_config(str(folder / "har.py")))
    name, kept, run = STUDIES[size]
    config = student(load_config(str(folder / name)), kept, run)
    if size == "sentiment":
        config.duration = "200 steps"  # half of the teacher's: 316 emoji, of which it sees the names alone
    return config


def student(config: fdl.Config, kept: tuple[str, ...], run: str | None) -> fdl.Config:
    """Returns the config of a student of the modalities `kept`, taught by the model of config as `run` trained it."""
    teacher = fdl.deepcopy_with(config.model)
    model = config.model
    model.encoders = {name: model.encoders[name] for name in kept}
    model.modality_dropout = {}
    model.decoders["hint"] = fdl.Config(Head, teacher.encoders[kept[0]].width, "values")
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
