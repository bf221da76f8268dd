"""The one order of initialisation: resume, then the weights of another run, then from scratch."""

from __future__ import annotations

from typing import Any

from mmjax.training.checkpoint import Checkpoints, InitFrom
from mmjax.training.state import TrainState
from mmjax.training.trainer import Trainer


def stored_preprocess(checkpoints: Checkpoints, init_from: InitFrom | None) -> dict[str, Any]:
    """Returns modality -> preprocessing spec that the initial state comes with; none from scratch."""
    if checkpoints.latest() is not None:
        return checkpoints.meta()["preprocess"]
    return init_from.preprocess() if init_from else {}


def initial_state(trainer: Trainer, checkpoints: Checkpoints, init_from: InitFrom | None) -> tuple[TrainState, str]:
    """Returns (state, a sentence that says where it came from).

    Raises:
      UserError: a checkpoint that does not fit.
    """
    step = checkpoints.latest()
    if step is not None:
        return checkpoints.restore(trainer.abstract, step), f"resumed everything from step {step}"
    state = trainer.init()
    if init_from is not None:
        params = init_from.merge(state.params)
        return trainer.from_params(params), f"initialised the weights from {init_from.path}; all else is fresh"
    return state, "initialised from scratch"
