"""The configs: published sizes shard over a pod, smoke sizes train, precision reaches the matmuls."""

import io
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from rich.console import Console

from mmjax.core.config import load_config
from mmjax.core.mesh import AXES
from mmjax.core.precision import compute_dtype
from mmjax.core.trees import flatten
from mmjax.core.types import Stream
from mmjax.training.experiment import build
from mmjax.training.loop import fit
from mmjax.training.sharding import param_specs

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def model_and_streams(name: str, precision: str = "float32"):
    config = load_config(str(CONFIGS / name))
    config.precision = precision
    image, text = (config.data.transforms[name] for name in ("image", "text"))
    streams = {
        "image": Stream(jnp.zeros((2, image.size, image.size, 3), jnp.uint8), jnp.ones((2, 1), bool)),
        "text": Stream(jnp.zeros((2, text.context_length), jnp.int32), jnp.ones((2, text.context_length), bool)),
    }
    config.data, config.evaluations = None, {}  # nothing is opened
    return build(config).model, streams


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("clip.py:B/32", 151_277_313),
        ("clip.py:B/16", 149_620_737),
        ("clip.py:L/14", 427_616_513),
        ("siglip.py:B/16", 203_155_970),
        ("siglip.py:So400m/14", 877_360_306),
    ],
)
def test_published_sizes_shard_over_a_pod(name, parameters):
    model, streams = model_and_streams(name)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), streams)["params"])
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters
    specs = param_specs(shapes, AbstractMesh((16, 16, 1), AXES))
    sharded = sum(leaf.size for path, leaf in flatten(shapes).items() if "fsdp" in specs[path])
    assert sharded > 0.99 * parameters


@pytest.mark.parametrize("name", ["clip.py:smoke", "siglip.py:smoke"])
def test_smoke_sizes_train(name, tmp_path):
    config = load_config(str(CONFIGS / name))
    config.duration, config.keep.every = "40 steps", "40 steps"
    fit(config, tmp_path, Console(file=io.StringIO()))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == 40 and records[-1]["skipped"] == 0
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


def equations(jaxpr):
    """Yields every equation of jaxpr, those of inner functions included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_reaches_the_matmuls_and_nothing_else(precision):
    model, streams = model_and_streams("openmoji.py:smoke", precision)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), streams)["params"])
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    jaxpr = jax.make_jaxpr(lambda p: model.apply({"params": p}, streams).embeddings)(params)
    inputs: dict[str, set] = {}
    for equation in equations(jaxpr.jaxpr):
        dtypes = inputs.setdefault(equation.primitive.name, set())
        dtypes |= {var.aval.dtype for var in equation.invars if jnp.issubdtype(var.aval.dtype, jnp.floating)}
    assert inputs["dot_general"] == {jnp.dtype(precision)}
    assert inputs["exp"] == inputs["rsqrt"] == {jnp.dtype("float32")}  # softmax and norms


def test_auto_precision_is_float32_on_cpu_and_bfloat16_elsewhere():
    assert compute_dtype("auto", "cpu") == jnp.float32
    assert compute_dtype("auto", "tpu") == compute_dtype("auto", "gpu") == jnp.bfloat16
