"""What a run's folder says about its model: which step, which config, which parameters."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import fiddle as fdl
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core.errors import UserError, listed
from mmjax.core.trees import map_with_path
from mmjax.training.checkpoint import Checkpoints
from mmjax.training.run_folder import check_run
from mmjax.training.sharding import param_specs


def open_run(directory: str | os.PathLike[str]) -> Checkpoints:
    """Returns the checkpoints of a run's folder.

    Raises:
      UserError: it is no run's folder, or has no complete checkpoint; says what it is instead.
    """
    path = check_run(directory, "load")
    checkpoints = Checkpoints(path)
    if checkpoints.latest() is None:
        checkpoints.close()
        raise UserError(f"load: the run {str(path)!r} has no complete checkpoint yet.")
    return checkpoints


def pick_step(checkpoints: Checkpoints, step: int | str | None, config: fdl.Config) -> int:
    """Returns the number of the step that is meant: itself, the newest whole one (None), or the 'best' by keep.metric.

    Raises:
      UserError: step is none of these, or 'best' where no checkpoint was evaluated.
    """
    if step is None:
        return checkpoints.newest_whole()
    if isinstance(step, int):
        return step
    if step != "best":
        raise UserError(f"load: step={step!r} must be a number, 'best', or None for the newest.")
    metric = getattr(setting(config, "keep"), "metric", None)
    best = checkpoints.best(metric) if metric else None
    if best is None:
        why = f"no checkpoint has the metric {metric!r}" if metric else "the run's config names no keep.metric"
        raise UserError(
            f"load: there is no best step, as {why}; there are the steps {listed(map(str, checkpoints.steps()))}."
        )
    return best


def setting(config: fdl.Config, name: str) -> Any:
    """Returns one value of config as it was set, or None; fiddle itself refuses where the default is made anew."""
    return fdl.ordered_arguments(config).get(name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps warnings about the folder's layout, which a reader can do nothing about, out of a notebook."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def restore_params(checkpoints: Checkpoints, step: int, mesh: Mesh, config: fdl.Config) -> Any:
    """Returns the parameters of step on mesh, sharded by the rules of config where fsdp or tensor is more than 1.

    Raises:
      UserError: there is no such step, or the mesh does not divide a parameter.
    """
    params = checkpoints.restore_params(step, NamedSharding(mesh, P()))
    if mesh.shape["fsdp"] == mesh.shape["tensor"] == 1:
        return params
    specs = param_specs(params, mesh, config.rules)
    return map_with_path(lambda name, leaf: jax.device_put(leaf, NamedSharding(mesh, specs[name])), params)
