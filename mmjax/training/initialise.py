"""The one order of initialisation: resume, then the weights of another run, then published ones, then from scratch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from mmjax.core.errors import UserError, listed, nearest, one_of
from mmjax.core.trees import flatten, map_with_path, matches_any
from mmjax.model import TEACHERS, teacher_patterns
from mmjax.training.checkpoint import Checkpoints, InitFrom
from mmjax.training.sharding import placed
from mmjax.training.state import TrainState
from mmjax.training.trainer import Trainer
from mmjax.weights.published import Published

Teachers = Mapping[str, InitFrom]
NONE: Mapping[str, Any] = MappingProxyType({})


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
    trainer: Trainer,
    checkpoints: Checkpoints,
    init_from: InitFrom | None,
    teachers: Teachers = NONE,
    pretrained: Mapping[str, Published] = NONE,
) -> tuple[TrainState, str]:
    """Returns (state, a sentence that says where it came from).

    Published weights are read only where nothing else gives those of their part: a run that is resumed, or begins with
    all the weights of another, does not need their files.

    Raises:
      UserError: weights that do not fit or are not there, a teacher or a part that the model has not.
    """
    step = checkpoints.latest()
    if step is not None:
        return checkpoints.restore(trainer.abstract, step), f"resumed everything from step {step}"
    published = {
        path: _published(path, weights, trainer.abstract.params, None if init_from is None else init_from.allow_missing)
        for path, weights in pretrained.items()
    }
    state, origin = trainer.init(), ["initialised from scratch"]
    params = _begun(state.params, {name: leaf for values in published.values() for name, leaf in values.items()})
    if init_from is not None:
        own = (*init_from.allow_missing, *teacher_patterns(teachers))
        params = dataclasses.replace(init_from, allow_missing=own).merge(params)
        origin = [f"initialised the weights from {init_from.path}; all else is fresh"]
    begun = "" if init_from is None else "what it lacks of "
    origin += [f"{begun}{path} has the weights of {pretrained[path].path}" for path in published if published[path]]
    known = {key.removeprefix(TEACHERS) for key in params if key.startswith(TEACHERS)}
    for name, teacher in teachers.items():
        one_of(name, sorted(known), "experiment.teachers: the teacher of the model")
        params = params | {TEACHERS + name: teacher.merge(params[TEACHERS + name])}
        origin.append(f"the teacher {name!r} has the weights of {teacher.path}")
    origin += [f"the teacher {name!r} has RANDOM weights" for name in sorted(known - set(teachers)) if not init_from]
    return state if params is state.params else trainer.from_params(params), "; ".join(origin)


def _published(path: str, weights: Published, params: Any, missing: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Returns parameter path -> values of the part at path.

    Args:
      path: of a part of the parameters.
      weights: that it begins with.
      params: shapes of all.
      missing: patterns of what a run that gives the weights may lack; a part that it cannot lack has none here. None:
        there is no such run.

    Raises:
      UserError: no part of that path, or weights that do not fit it.
    """
    leaves = {name: leaf for name, leaf in flatten(params).items() if name.startswith(f"{path}/")}
    if not leaves:
        parts = {name.rpartition("/")[0] for name in flatten(params)} | set(params)
        raise UserError(
            f"experiment.pretrained: the model has no part {path!r}.{nearest(path, sorted(parts))} Its parts "
            f"begin with: {listed(params)}."
        )
    if missing is not None and not any(matches_any(name, missing) for name in leaves):
        return {}
    try:
        found = weights.fill({name.removeprefix(f"{path}/"): leaf for name, leaf in leaves.items()})
    except UserError as error:
        raise UserError(f"experiment.pretrained, {path}: {error}") from error
    return {f"{path}/{name}": values for name, values in found.items()}


def _begun(params: Any, values: Mapping[str, np.ndarray]) -> Any:
    """Returns params with values (path -> array) in their place, sharded as they are."""
    if not values:
        return params
    return map_with_path(lambda n, leaf: placed(values[n], leaf.sharding) if n in values else leaf, params)
