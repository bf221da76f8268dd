"""Any subset of six real modalities, another in every row of the batch: one compilation, finite gradients, no leaks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.serialization import msgpack_serialize

from mmjax.core.subsets import subsets
from mmjax.core.types import Batch, Stream
from mmjax.decoders.head import Head
from mmjax.decoders.probes import Probes
from mmjax.encoders.audio import AudioEncoder
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.pointcloud import PointCloudEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.encoders.timeseries import SeriesEncoder
from mmjax.encoders.video import VideoEncoder
from mmjax.fusion.early import Early
from mmjax.fusion.missing import LearnedTokens
from mmjax.layers.dropout import example_keys
from mmjax.model import MultimodalModel
from mmjax.tasks.supervised import Classification
from tests.devices import run_on_devices
from tests.quick import jit

TOWER = {"width": 8, "depth": 1, "num_heads": 2, "mlp_dim": 16, "dropout": 0.1}
NAMES = ("image", "video", "audio", "text", "imu", "points")
SUBSETS = subsets(NAMES)
SIZE = 64  # 63 subsets, and a row that has nothing
TASK = Classification(probes="probe")


def model(dtype=jnp.float32, fusion=None) -> MultimodalModel:
    """Returns a model of six modalities."""
    tower = TOWER | {"dtype": dtype}
    encoders = {
        "image": ImageEncoder(4, pool="mean", **tower),
        "video": VideoEncoder(4, attention="divided", **tower),
        "audio": AudioEncoder(patch_size=(16, 16), **tower),
        "text": TextEncoder(20, pool="mean", **tower),
        "imu": SeriesEncoder(4, **tower),
        "points": PointCloudEncoder(num_groups=4, group_size=4, group_hidden=(8, 8, 8), **tower),
    }
    decoders = {"label": Head(3), "probe": Probes(3)}
    fusion = fusion or Early(**tower)
    return MultimodalModel(encoders, fusion, decoders, LearnedTokens(), {name: 0.3 for name in NAMES})


def batch(order=range(SIZE), garbage: float = 0.0) -> Batch:
    """Returns random streams, row r with the modalities of subset order[r]; garbage replaces what is missing."""
    rng = np.random.default_rng(0)
    values = {
        "image": rng.integers(0, 255, (SIZE, 8, 8, 3)).astype(np.uint8),
        "video": rng.integers(0, 255, (SIZE, 4, 8, 8, 3)).astype(np.uint8),
        "audio": (rng.normal(size=(SIZE, 2000)) * 1000).astype(np.int16),
        "text": rng.integers(0, 20, (SIZE, 5)).astype(np.int32),
        "imu": rng.normal(size=(SIZE, 8, 3)).astype(np.float32),
        "points": rng.normal(size=(SIZE, 12, 4)).astype(np.float32),
    }
    steps = {"image": 1, "video": 4, "audio": 2000, "text": 5, "imu": 8, "points": 12}
    streams = {}
    for name in NAMES:
        there = np.array([number < len(SUBSETS) and name in SUBSETS[number] for number in order])
        values[name][~there] = np.asarray(garbage).astype(values[name].dtype)
        streams[name] = Stream(values[name], np.repeat(there[:, None], steps[name], axis=1))
    label = rng.integers(0, 3, SIZE).astype(np.int32)
    return Batch(streams, np.arange(SIZE, dtype=np.int32), np.ones(SIZE, bool), {"label": label})


def loss_of(module, params, batch, noise: bool):
    """Returns the mean loss and the predictions."""
    rng = example_keys(jax.random.key(0), SIZE) if noise else None
    apply = lambda params, streams, rng: module.apply({"params": params}, streams, rng)  # noqa: E731
    by_example, shared = TASK.embed(apply, params, batch, rng)
    return TASK.loss(by_example, shared, batch).mean(), by_example["prediction"]


@functools.lru_cache
def compiled(dtype):
    """Returns (params, a jitted value_and_grad, the list that each trace adds to)."""
    module, traces = model(dtype), []
    params = jit(module.init)(jax.random.key(0), batch().streams)["params"]

    @jit
    def value_and_grad(params, batch):
        traces.append(dtype)
        return jax.value_and_grad(lambda p: loss_of(module, p, batch, True), has_aux=True)(params)

    return params, value_and_grad, traces


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_subset_at_every_position_compiles_once_and_is_finite(dtype):
    params, value_and_grad, traces = compiled(dtype)
    before = len(traces)
    for shift in (0, 1, 17, 40):
        (loss, predictions), grads = value_and_grad(params, batch(np.roll(np.arange(SIZE), shift)))
        assert np.isfinite(loss) and np.isfinite(np.asarray(predictions, np.float32)).all()
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(grads))
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert len(traces) <= before + 1


def test_what_is_missing_cannot_be_seen():
    params, value_and_grad, _ = compiled(jnp.float32)
    (_, plain), _ = value_and_grad(params, batch())
    (_, other), _ = value_and_grad(params, batch(garbage=99.0))
    np.testing.assert_array_equal(plain, other)


def test_eight_devices_agree_with_one(tmp_path):
    """Relative difference of the loss, and of the gradient as one vector, below 2e-6: float32 sums in another order."""
    order = np.roll(np.arange(SIZE), 5)
    params, value_and_grad, _ = compiled(jnp.float32)
    (loss, _), grads = value_and_grad(params, batch(order))
    one = jax.tree.map(np.asarray, {"params": params, "loss": loss, "grads": grads})
    (tmp_path / "one").write_bytes(msgpack_serialize(one))
    run_on_devices(f"""
        import pathlib
        import jax, numpy as np, optax
        from flax.serialization import msgpack_restore
        from mmjax.core.mesh import MeshShape, batch_sharding, make_mesh
        from tests.quick import jit
        from tests.test_missing import batch, loss_of, model

        module, one = model(), msgpack_restore(pathlib.Path({str(tmp_path / "one")!r}).read_bytes())
        mesh = make_mesh(MeshShape(data=4, fsdp=2))
        with jax.set_mesh(mesh):
            placed = jax.device_put(batch({order.tolist()}), batch_sharding(mesh))
            many = jit(jax.value_and_grad(lambda p, b: loss_of(module, p, b, True)[0]))(one["params"], placed)
        difference = jax.tree.map(lambda a, b: a - np.asarray(b), one["grads"], many[1])
        size = optax.global_norm(difference) / optax.global_norm(one["grads"])
        found = abs(float(one["loss"]) / float(many[0]) - 1), size
        assert max(found) < 2e-6, found
        """)
