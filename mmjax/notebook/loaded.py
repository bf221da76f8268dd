"""`mmjax.load(DIR)`: opens a trained run.

All that is read is the run's folder: the model is built from the config in the checkpoint (through the import
allow-list), the preprocessing from its spec. The training data need not exist.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence

import jax
from etils import epath
from jax.sharding import Mesh

from mmjax.core.config import from_json
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.data.transforms import transforms_from_spec
from mmjax.notebook.loaded_model import LoadedModel
from mmjax.notebook.run_folder import open_run, pick_step, quiet, restore_params
from mmjax.training.evaluate import encoded
from mmjax.training.experiment import build_model
from mmjax.training.sharding import check_batch


def load(
    directory: str | os.PathLike[str],
    step: int | str | None = None,
    *,
    allow: Sequence[str] = (),
    mesh: Mesh | None = None,
    batch_size: int | None = None,
) -> LoadedModel:
    """Loads a run for use.

    Args:
      directory: workdir of the run, local or remote.
      step: of the checkpoint; None is the newest, 'best' the best by the run's own metric.
      allow: packages besides mmjax and flax.linen that the run's config may name; they are imported.
      mesh: of devices: batches are cut over its axes data and fsdp, parameters by the run's rules over fsdp and tensor.
        Default: all devices of this process on the axis data.
      batch_size: rows of every call of the model, filled up where there are fewer, so that it compiles once. Default:
        32, or the next multiple of the devices that share a batch.

    Raises:
      UserError: directory is no run, has no such checkpoint, or names what is not allowed.
    """
    with quiet(), contextlib.closing(open_run(directory)) as checkpoints:
        config = from_json(json.dumps(checkpoints.meta()["config"]), allow)
        step = pick_step(checkpoints, step, config)
        meta = checkpoints.meta(step)
        mesh = mesh or make_mesh(MeshShape(), jax.local_devices())
        parts = mesh.shape["data"] * mesh.shape["fsdp"]
        batch_size = batch_size or math.ceil(32 / parts) * parts
        check_batch(batch_size, mesh)
        config = from_json(json.dumps(meta["config"]), allow)
        model = build_model(config)
        transforms = transforms_from_spec(meta["preprocess"], ("mmjax.", *(f"{package}." for package in allow)))
        return LoadedModel(
            directory=epath.Path(directory),
            step=step,
            config=config,
            model=model,
            params=restore_params(checkpoints, step, mesh, config),
            transforms=encoded(model, transforms),
            mesh=mesh,
            batch_size=batch_size,
        )
