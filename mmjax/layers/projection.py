"""A projection into a shared space in which a fresh model tells nothing apart."""

from __future__ import annotations

import flax.linen as nn
from flax.linen.initializers import Initializer, normal, variance_scaling


class Projection(nn.Dense):
    """flax.linen.Dense whose bias is large and whose kernel is small at first, so that all vectors are nearly one.

    A contrastive loss over N pairs then starts at ln N at any temperature, instead of above it by how much the random
    vectors happen to differ. Inputs are expected to have been normalised (LayerNorm), elements of about 1; the part
    that tells them apart is then a sixteenth of it. It is not 0, where the loss has no gradient.
    """

    kernel_init: Initializer = variance_scaling(1e-3, "fan_in", "truncated_normal")
    bias_init: Initializer = normal(0.5)
