"""Rematerialisation: what the backward pass keeps of a layer, and what it computes again."""

from __future__ import annotations

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

from mmjax.core.errors import one_of

_KEPT, _WIDE = "kept", "wide"
_POLICIES = {"core": (_KEPT, _WIDE), "mlp": (_KEPT,)}


def keep(x: jax.Array, wide: bool = False) -> jax.Array:
    """Marks what remat='core' keeps of a layer: results of matrix products, residual sums, the statistics of norms.

    All that lies between them (norms, attention probabilities, activations) is cheap to compute and large to keep.

    Args:
      x: in the compute dtype.
      wide: it is the hidden layer of an MLP, which takes as much memory as all the others together; remat='mlp' keeps
        the others alone, and computes one matrix product of a layer again.
    """
    return checkpoint_name(x, _WIDE if wide else _KEPT)


def rematerialised(layer: type[nn.Module], policy: str, prevent_cse: bool) -> type[nn.Module]:
    """Returns the layer with a policy: 'none', 'core', 'mlp' (see `keep`), 'full', or one of jax.checkpoint_policies.

    Args:
      layer: a module.
      policy: 'full' keeps the layer's inputs alone; so do the others where nothing in the layer is marked.
      prevent_cse: False inside a scan, where the two computations cannot be joined.

    Raises:
      UserError: an unknown policy.
    """
    names = [name for name in dir(jax.checkpoint_policies) if not name.startswith("_")]
    one_of(policy, ["none", *_POLICIES, "full", *names], "remat")
    if policy == "none":
        return layer
    if policy == "full":
        return nn.remat(layer, prevent_cse=prevent_cse)
    if policy in _POLICIES:
        chosen = jax.checkpoint_policies.save_only_these_names(*_POLICIES[policy])
    else:
        chosen = getattr(jax.checkpoint_policies, policy)
    return nn.remat(layer, prevent_cse=prevent_cse, policy=chosen)
