"""What the ring tests look at on several devices; run in processes of their own, results printed as JSON."""

import functools
import json
import math
import re
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.mesh import MeshShape, batch_sharding, make_mesh
from tests.losses import reference
from tests.losses.forms import evaluate, objective, scalars

KINDS = ("softmax", "sigmoid")

MESHES = [
    ((1, 1, 1), 7),
    ((2, 1, 1), 7),
    ((1, 4, 1), None),
    ((8, 1, 1), 4),
    ((2, 4, 1), 1),
    ((2, 4, 1), 30),  # blocks are joined over fsdp, and travel over data
    ((2, 4, 1), None),  # all blocks are joined, none travels
    ((2, 2, 2), 5),
    ((1, 1, 8), 7),
]
"""(data, fsdp, tensor) and chunk size; 48 rows, so that most of the chunks do not divide a device's share."""

FORMS = {
    "ring": {"size": 512, "dim": 16, "chunk_size": 32},
    "joined": {"size": 64, "dim": 16, "chunk_size": 32},  # 8 rows a device, 32 of the 4 neighbours on fsdp
    "dense": {"size": 512, "dim": 16},
}
"""What `describe` is asked on eight devices."""

COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute|collective-broadcast)(?:-start)?\("
)
"""Shape and name of a collective in compiled HLO."""


def on_eight() -> None:
    """Prints what all tests of eight devices look at."""
    forms = {f"{kind} {name}": describe(kind, **form) for kind in KINDS for name, form in FORMS.items()}
    print(json.dumps({"differences": compare_with_float64()} | forms))


def on_many() -> None:
    """Prints kind -> `memory`."""
    print(json.dumps({kind: memory(kind) for kind in KINDS}))


def compare_with_float64() -> dict[str, float]:
    """Returns, for each mesh and form, the largest difference from float64 over the largest value."""
    data = reference.example(48, groups=17, masked=0.25)
    worst = {}
    for shape, chunk_size in MESHES:
        mesh = make_mesh(MeshShape(*shape), jax.devices()[: math.prod(shape)])
        placed = jax.device_put(data, batch_sharding(mesh))
        forms = {"ring": {"chunk_size": chunk_size}}
        if shape == (2, 2, 2):
            forms |= {"dense": {}, "all axes": {"chunk_size": 5, "axes": ("data", "fsdp", "tensor")}}
        for kind in KINDS:
            want = getattr(reference, kind)(data, **scalars(kind))
            for form, options in forms.items():
                with jax.set_mesh(mesh):
                    got = evaluate(kind, placed, **options)
                worst[f"{kind} {shape} {form} {chunk_size}"] = reference.assert_close(got, want, rel=math.inf)
    return worst


def describe(kind: str, size: int, dim: int, **options) -> dict[str, Any]:
    """Returns what value and gradient of a form hold and send, on data 2 x fsdp 4, for bfloat16 embeddings."""
    data = reference.example(size, dim, groups=size // 2, masked=0.1)
    variables = {name: jnp.asarray(data.pop(name), jnp.bfloat16) for name in ("a", "b")}
    mesh = make_mesh(MeshShape(2, 4, 1))
    variables, data = jax.device_put((variables, data), batch_sharding(mesh))
    variables |= scalars(kind)
    with jax.set_mesh(mesh):
        fn = jax.value_and_grad(lambda v, d: objective(kind, v, d, **options)[0])
        found = list(_equations(jax.make_jaxpr(fn)(variables, data).jaxpr))
        text = jax.jit(fn).lower(variables, data).compile().as_text()
    collectives = COLLECTIVE.findall(text)
    summed = [shape for shape, name in collectives if name == "all-reduce"]
    sent = [v.aval for eqn, _ in found if eqn.primitive.name == "ppermute" for v in eqn.invars]
    return {
        "largest_per_device": max((v.aval.size for eqn, inside in found if inside for v in eqn.outvars), default=0),
        "largest_compiled": max(math.prod(map(int, dims.split(","))) for dims in re.findall(r"\[([\d,]+)\]", text)),
        "shard_maps": sum(eqn.primitive.name == "shard_map" for eqn, _ in found),
        "embeddings_sent": sorted(x.dtype.name for x in sent if x.ndim == 3),
        "collectives": sorted({name for _, name in collectives}),
        "summed": sorted({dims for shape in summed for dims in re.findall(r"\[([\d,]*)\]", shape)}),
    }


def memory(kind: str, per_device: int = 16, dim: int = 64) -> dict[int, int]:
    """Returns the bytes of one device that value and gradient take beside their arguments, on 8, 64 and 256 devices."""
    found = {}
    for number in (8, 64, 256):
        mesh = make_mesh(MeshShape(-1, 4, 1), jax.devices()[:number])
        rows = jax.ShapeDtypeStruct((per_device * number, dim), jnp.bfloat16, sharding=batch_sharding(mesh))
        with jax.set_mesh(mesh):
            value = functools.partial(objective, kind, data={"weight": 1.0}, chunk_size=per_device)
            fn = jax.value_and_grad(lambda v, value=value: value(v | scalars(kind))[0])
            found[number] = jax.jit(fn).lower({"a": rows, "b": rows}).compile().memory_analysis().temp_size_in_bytes
    return found


def _equations(jaxpr, inside: bool = False):
    """Yields every equation of a jaxpr and of those within it, and whether a shard_map is around it."""
    for equation in jaxpr.eqns:
        yield equation, inside
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from _equations(inner, inside or equation.primitive.name == "shard_map")
