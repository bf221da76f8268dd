"""Fourier features: coordinates as sines and cosines at many scales."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError, at_least


def geometric_wavelengths(longest: float, shortest: float, count: int) -> tuple[float, ...]:
    """Returns `count` wavelengths in geometric steps, from the longest to the shortest.

    Raises:
      UserError: they do not fall, or are not positive.
    """
    at_least(1, "wavelengths", count=count)
    if not 0 < shortest <= longest:
        raise UserError(f"wavelengths: expected longest >= shortest > 0, got longest={longest}, shortest={shortest}.")
    return tuple(np.geomspace(longest, shortest, count).tolist())


def fourier_features(x: jax.Array, wavelengths: tuple[float, ...]) -> jax.Array:
    """Returns [..., 2 W] float32: sin(2 pi x / wavelength), then the cosines, for each of W wavelengths.

    Args:
      x: [...] float32, in the unit of the wavelengths: degrees of latitude or longitude with wavelengths from 360 down
        to 0.001 (some 100 m). float32 holds a longitude to within 1.5e-5 degrees (1.7 m): shorter waves need
        coordinates that are relative to a place nearby.
      wavelengths: of the W waves.

    References:
      Tancik et al., Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains, 2020,
      section 6.1 (positional encoding: log-linear frequencies).
    """
    turns = x.astype(jnp.float32)[..., None] / jnp.asarray(wavelengths, jnp.float32)  # [..., W]
    angles = 2 * jnp.pi * (turns - jnp.round(turns))  # small angles keep float32's digits
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)  # [..., 2 W]
