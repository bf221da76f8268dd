"""Sharding: the golden table, errors that name the parameter, and one training step on any mesh."""

import json

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from mmjax.core.errors import UserError
from mmjax.core.mesh import AXES
from mmjax.training.experiment import build
from mmjax.training.sharding import param_specs
from tests.devices import run_on_devices
from tests.training.tiny import tiny_batch, tiny_config

MESH = AbstractMesh((2, 4, 2), AXES)

GOLDEN = {
    "encoders_image/patches/embedding/kernel": P(None, "fsdp"),
    "encoders_image/positions/table": P(None, "fsdp"),
    "encoders_image/transformer/blocks/attention/query/kernel": P(None, "fsdp", "tensor", None),
    "encoders_image/transformer/blocks/attention/key/kernel": P(None, "fsdp", "tensor", None),
    "encoders_image/transformer/blocks/attention/value/kernel": P(None, "fsdp", "tensor", None),
    "encoders_image/transformer/blocks/attention/out/kernel": P(None, "tensor", None, "fsdp"),
    "encoders_image/transformer/blocks/mlp/up/kernel": P(None, "fsdp", "tensor"),
    "encoders_image/transformer/blocks/mlp/down/kernel": P(None, "tensor", "fsdp"),
    "encoders_text/vocabulary/embedding": P(None, "fsdp"),
    "fusion/projections_image/kernel": P(None, "fsdp"),
    "fusion/projections_text/kernel": P(None, "fsdp"),
}


@pytest.fixture(scope="module")
def shapes():
    model = build(tiny_config()).model
    return jax.eval_shape(lambda: model.init(jax.random.key(0), tiny_batch().streams)["params"])


def test_golden_table(shapes):
    specs = param_specs(shapes, MESH)
    text = {name.replace("image/transformer", "text/transformer"): spec for name, spec in GOLDEN.items()}
    table = GOLDEN | text | {"encoders_text/positions/table": P(None, "fsdp")}
    assert {name: spec for name, spec in specs.items() if spec != P()} == table


def test_scanned_and_unrolled_layers_have_the_same_rules():
    config = tiny_config()
    config.model.encoders["image"].scan = False
    model = build(config).model
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tiny_batch().streams)["params"])
    spec = param_specs(shapes, MESH)["encoders_image/transformer/block_1/attention/query/kernel"]
    assert spec == P("fsdp", "tensor", None)


def test_a_dead_rule_is_an_error(shapes):
    with pytest.raises(UserError, match=r"rule '.*/qeury/kernel' matches no parameter"):
        param_specs(shapes, MESH, [(r".*/qeury/kernel", ("fsdp",))])


def test_an_indivisible_dimension_is_an_error(shapes):
    with pytest.raises(
        UserError, match=r"dimension 2 of encoders_\w+/.*/(query|key)/kernel .* mesh axis 'tensor' of size 4"
    ):
        param_specs(shapes, AbstractMesh((1, 1, 4), AXES))


def test_a_large_leaf_without_a_rule_is_an_error():
    big = {"codebook": jax.ShapeDtypeStruct((2048, 1024), np.float32)}
    with pytest.raises(UserError, match=r"no rule matches codebook of shape \(2048, 1024\)"):
        param_specs(big, MESH)
    assert param_specs(big, MESH, [("codebook", ())])["codebook"] == P(None, None)


RUN = """
import json, sys
import jax
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.training.sharding import global_batch
from mmjax.training.trainer import make_trainer
from mmjax.training.experiment import build
from mmjax.core.trees import flatten
from tests.training.tiny import tiny_batch, tiny_config
losses = {}
for name, shape in {"1": None, "data8": (8, 1, 1), "fsdp4data2": (2, 4, 1), "tensor2fsdp2data2": (2, 2, 2)}.items():
    config = tiny_config(micro_batches=2 if name == "fsdp4data2" else 1)
    config.model.encoders["image"].batch_parts = 2 if name == "data8" else 1
    e = build(config)
    devices = jax.devices() if shape else jax.devices()[:1]
    mesh = make_mesh(MeshShape(*(shape or (1, 1, 1))), devices)
    with jax.set_mesh(mesh):
        trainer = make_trainer(e, e.data, mesh)
        state, found = trainer.init(), []
        for _ in range(3):
            state, metrics = trainer.step(state, global_batch(tiny_batch(), 16, mesh))
            found.append(float(metrics["loss"]))
        moments = flatten(state.opt_state)
        sharded = [n for n, leaf in moments.items() if n.endswith("up/kernel") and not leaf.is_fully_replicated]
        expected = 0 if name in ("1", "data8") else 4  # mu and nu of two towers
        assert len(sharded) == expected, (name, sharded)
    losses[name] = found
print(json.dumps(losses))
"""


def test_every_mesh_gives_the_losses_of_one_device():
    losses = json.loads(run_on_devices(RUN).splitlines()[-1])
    assert losses["1"][-1] < losses["1"][0]
    for name, found in losses.items():
        np.testing.assert_allclose(found, losses["1"], rtol=2e-5, err_msg=name)  # float32, other orders of sums
