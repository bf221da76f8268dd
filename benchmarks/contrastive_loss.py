"""Time and memory of value and gradient: the dense contrastive losses against the ring forms, in one run.

    python benchmarks/contrastive_loss.py
    XLA_FLAGS=--xla_force_host_platform_device_count=4 python benchmarks/contrastive_loss.py --sizes 4096

Rows are sharded over all devices that JAX sees. Memory is what XLA plans for temporaries on one device (arguments and
results apart), time is the least of --repeats calls; ratios are dense over ring.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmjax.core.mesh import batch_sharding, make_mesh
from mmjax.losses.contrastive import sigmoid_contrastive, softmax_contrastive
from mmjax.losses.ring import ring_sigmoid_contrastive, ring_softmax_contrastive

PAIRS = {
    "softmax": (softmax_contrastive, ring_softmax_contrastive, {"logit_scale": 1 / 0.07}),
    "sigmoid": (sigmoid_contrastive, ring_sigmoid_contrastive, {"logit_scale": 10.0, "logit_bias": -10.0}),
}


def measure(loss_fn: Callable, scalars: dict[str, float], a: jax.Array, b: jax.Array, repeats: int) -> dict[str, float]:
    """Returns seconds, MiB of temporaries a device, and the mean loss."""

    def mean_loss(a: jax.Array, b: jax.Array, scalars: dict[str, jax.Array]) -> jax.Array:
        return loss_fn(a, b, **scalars).mean()

    compiled = jax.jit(jax.value_and_grad(mean_loss, argnums=(0, 1, 2))).lower(a, b, scalars).compile()
    loss, _ = jax.block_until_ready(compiled(a, b, scalars))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(a, b, scalars))
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": min(seconds),
        "mib": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        "loss": float(loss),
    }


def embeddings(size: int, dim: int, dtype: str, sharding: jax.sharding.Sharding) -> list[jax.Array]:
    """Returns two [N, D] arrays of random unit vectors."""

    def unit(key: jax.Array) -> jax.Array:
        x = jax.random.normal(key, (size, dim))
        return (x / jnp.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)

    return [jax.device_put(unit(jax.random.key(seed)), sharding) for seed in (0, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--chunk-size", type=int, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--no-dense", action="store_true", help="leave the dense form out, for N whose logits do not fit"
    )
    options = parser.parse_args()

    mesh = make_mesh()
    print(f"{mesh.size} x {jax.devices()[0].device_kind}, D = {options.dim}, {options.dtype}")
    print(f"{'loss':8} {'N':>7} {'form':5} {'ms':>9} {'MiB':>9} {'loss':>10}  dense / ring: time, memory")
    with jax.set_mesh(mesh):
        for kind, (dense, ring, scalars) in PAIRS.items():
            for size in options.sizes:
                a, b = embeddings(size, options.dim, options.dtype, batch_sharding(mesh))
                forms = {"ring": functools.partial(ring, chunk_size=options.chunk_size)}
                forms = forms if options.no_dense else {"dense": dense, **forms}
                rows = {name: measure(form, scalars, a, b, options.repeats) for name, form in forms.items()}
                for name, row in rows.items():
                    line = (
                        f"{kind:8} {size:7} {name:5} {row['seconds'] * 1e3:9.1f} {row['mib']:9.1f} {row['loss']:10.5f}"
                    )
                    if name == "ring" and "dense" in rows:
                        ratios = [rows["dense"][what] / max(row[what], 1e-9) for what in ("seconds", "mib")]
                        line += f"  {ratios[0]:.2f} x, {ratios[1]:.1f} x"
                    print(line, flush=True)


if __name__ == "__main__":
    main()
