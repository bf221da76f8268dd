"""big_vision's SigLIP step compiled for a TPU slice; a peer of `benchmarks/plan_siglip.py`.

    python -m benchmarks.big_vision_step B/16 v5e:16x16 16384 [CHECKOUT]

The towers are those of a checkout of google-research/big_vision, or where none is given those of
`benchmarks.big_vision_style`: scanned with full remat, bfloat16 matrix products in the image tower as its configs set
them. The step is written after its SigLIP trainer: float32 pictures, logits [N, N], Adam with a bfloat16
first moment, one mesh axis, arrays of 4 MB and more cut along their largest dimension. Prints one JSON line.
"""

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.big_vision_style import TwoTowers
from mmjax.planning import estimate
from mmjax.planning.command import quiet
from mmjax.planning.hlo import parse
from mmjax.planning.topology import get_topology

_MIN_BYTES = 4 * 2**20


def cut(leaf: jax.ShapeDtypeStruct, mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
    """Returns leaf with its largest dimension that divides over all devices."""
    axes: list[str | None] = [None] * leaf.ndim
    sizes = [(size, axis) for axis, size in enumerate(leaf.shape) if size % mesh.size == 0]
    if sizes and leaf.size * leaf.dtype.itemsize >= _MIN_BYTES:
        axes[max(sizes)[1]] = "data"
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, P(*axes)))


def two_towers(variant: str, checkout: str | None = None) -> Any:
    """Returns the model (images, texts) -> embeddings of both, {'t', 'b'}."""
    if checkout is None:
        return TwoTowers(variant)
    sys.path.insert(0, checkout)
    from big_vision.models.proj.image_text import two_towers

    layers = {"scan": True, "remat_policy": "nothing_saveable"}
    return two_towers.Model(
        image={"variant": variant, "pool_type": "map", "dtype_mm": "bfloat16", **layers},
        text={"variant": variant.partition("/")[0], "vocab_size": 32_000, **layers},
        out_dim=(None, {"B": 768, "L": 1024}[variant.partition("/")[0]]),
        temperature_init=10.0,
        bias_init=-10.0,
    )


def main() -> None:
    variant, topology, batch, *checkout = sys.argv[1:]
    batch, model = int(batch), two_towers(variant, *checkout)
    with quiet():
        slice_ = get_topology(topology)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(b2=0.95, mu_dtype=jnp.bfloat16),
        optax.add_decayed_weights(1e-4),
        optax.scale(-1e-3),
    )

    def loss(params, images, texts):
        image, text, extras = model.apply({"params": params}, images, texts, train=True)
        logits = image @ text.T * extras["t"] + extras["b"]  # [N, N]
        sign = 2 * jnp.eye(len(logits)) - 1
        return -jax.nn.log_sigmoid(sign * logits).sum(-1).mean()

    def step(params, state, images, texts):
        value, gradients = jax.value_and_grad(loss)(params, images, texts)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        norms = [optax.global_norm(tree) for tree in (gradients, params, updates)]
        return params, state, [value, *norms]

    devices = list(slice_.devices)
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    rows = NamedSharding(mesh, P("data"))
    images = jax.ShapeDtypeStruct((batch, 224, 224, 3), jnp.float32, sharding=rows)
    texts = jax.ShapeDtypeStruct((batch, 64), jnp.int32, sharding=rows)
    key = jax.random.key(0)
    with jax.set_mesh(mesh):
        params = jax.eval_shape(model.init, key, images, texts)["params"]
    state = jax.eval_shape(optimizer.init, params)
    params, state = (jax.tree.map(lambda leaf: cut(leaf, mesh), tree) for tree in (params, state))
    placed = [jax.tree.map(lambda leaf: leaf.sharding, tree) for tree in (params, state)]

    begin = time.monotonic()
    out_shardings = (*placed, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, donate_argnums=(0, 1), out_shardings=out_shardings)
        compiled = jitted.lower(params, state, images, texts).compile()
    seconds = time.monotonic() - begin
    program, memory = parse(compiled.as_text()), compiled.memory_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.generated_code_size_in_bytes
    found = estimate.collectives(program, len(devices), slice_.chip)
    print(
        json.dumps(
            {
                "compute_seconds": sum(estimate.cycles_by_part(program).values()) / slice_.chip.clock,
                "needed": memory.argument_size_in_bytes + memory.temp_size_in_bytes + outputs,
                "wire_bytes": sum(one.wire_bytes for one in found.values()),
                "compile_seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
