"""Rematerialisation: what the backward pass keeps of a layer, and what it computes again."""

from __future__ import annotations

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from mmjax.core.errors import one_of

_KEPT = "kept"


def keep(x: jax.Array) -> jax.Array:
    """Marks what remat='core' keeps of a layer: results of matrix products and residual sums, in the compute dtype.

    All that lies between them (norms, attention probabilities, activations) is cheap to compute and large to keep.
    """
    return checkpoint_name(x, _KEPT)


def rematerialised(layer: type[nn.Module], policy: str, prevent_cse: bool) -> type[nn.Module]:
    """Returns the layer with a policy: 'none', 'core' (see `keep`), 'full', or a name in jax.checkpoint_policies.

    Args:
      layer: a module.
      policy: 'full' keeps the layer's inputs alone; so does 'core' where nothing in the layer is marked.
      prevent_cse: False inside a scan, where the two computations cannot be joined.

    Raises:
      UserError: an unknown policy.
    """
    names = [name for name in dir(jax.checkpoint_policies) if not name.startswith("_")]
    one_of(policy, ["none", "core", "full", *names], "remat")
    if policy == "none":
        return layer
    if policy == "full":
        return nn.remat(layer, prevent_cse=prevent_cse)
    core = jax.checkpoint_policies.save_only_these_names(_KEPT)
    chosen = core if policy == "core" else getattr(jax.checkpoint_policies, policy)
    return nn.remat(layer, prevent_cse=prevent_cse, policy=chosen)
