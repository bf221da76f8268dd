"""What makes tests of whole encoders quick: parameters without compiling `init`, and gradients compiled carelessly."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.trees import map_with_path
from mmjax.core.types import Stream
from tests.quick import jit


def drawn_params(module: Any, stream: Stream) -> Any:
    """Returns parameters of module drawn with numpy: scales around 1, all else around 0."""
    rng = np.random.default_rng(0)

    def draw(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(0.2 * rng.standard_normal(leaf.shape) + path.endswith("scale"), leaf.dtype)

    return map_with_path(draw, jax.eval_shape(module.init, jax.random.key(0), stream))


def gradients(module: Any, params: Any, stream: Stream, rng: jax.Array | None = None) -> tuple[Any, Any]:
    """Returns the Tokens, and the gradients of a loss that all of them are in."""

    def loss(params: Any) -> tuple[jax.Array, Any]:
        found = module.apply(params, stream, rng)
        return jnp.mean(jnp.square(found.pooled.astype(jnp.float32))) + jnp.mean(found.x.astype(jnp.float32)), found

    (_, found), grads = jit(jax.value_and_grad(loss, has_aux=True))(params)
    return found, grads
