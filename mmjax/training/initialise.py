"""The one order of initialisation: resume, then the weights of another run, then from scratch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mmjax.core.errors import one_of
from mmjax.model import TEACHERS, teacher_patterns
from mmjax.training.checkpoint import Checkpoints, InitFrom
from mmjax.training.state import TrainState
from mmjax.training.trainer import Trainer

Teachers = Mapping[str, InitFrom]
NONE: Teachers = MappingProxyType({})


def stored_preprocess(
    checkpoints: Checkpoints, init_from: InitFrom | None, teachers: Teachers = NONE
) -> dict[str, Any]:
    """Returns modality -> preprocessing spec that the initial state comes with; none from scratch.

    What a teacher was trained with is taken too, as its inputs are those of the model.
    """
    if checkpoints.latest() is not None:
        return checkpoints.meta()["preprocess"]
    taught = {name: spec for teacher in teachers.values() for name, spec in teacher.preprocess().items()}
    return taught | (init_from.preprocess() if init_from else {})


def initial_state(
    trainer: Trainer, checkpoints: Checkpoints, init_from: InitFrom | None, teachers: Teachers = NONE
) -> tuple[TrainState, str]:
    """Returns (state, a sentence that says where it came from).

    Raises:
      UserError: a checkpoint that does not fit, or a teacher that the model has not.
    """
    step = checkpoints.latest()
    if step is not None:
        return checkpoints.restore(trainer.abstract, step), f"resumed everything from step {step}"
    state, origin = trainer.init(), ["initialised from scratch"]
    params = state.params
    if init_from is not None:
        own = (*init_from.allow_missing, *teacher_patterns(teachers))
        params = dataclasses.replace(init_from, allow_missing=own).merge(params)
        origin = [f"initialised the weights from {init_from.path}; all else is fresh"]
    known = {key.removeprefix(TEACHERS) for key in params if key.startswith(TEACHERS)}
    for name, teacher in teachers.items():
        one_of(name, sorted(known), "experiment.teachers: the teacher of the model")
        params = params | {TEACHERS + name: teacher.merge(params[TEACHERS + name])}
        origin.append(f"the teacher {name!r} has the weights of {teacher.path}")
    origin += [f"the teacher {name!r} has RANDOM weights" for name in sorted(known - set(teachers)) if not init_from]
    return state if params is state.params else trainer.from_params(params), "; ".join(origin)
