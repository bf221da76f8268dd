"""Power spectra that stay on the device that holds the rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def power_spectrum(frames: jax.Array, n_fft: int) -> jax.Array:
    """Returns |DFT|^2 [..., n_fft // 2 + 1] float32 of real frames [..., W], W <= n_fft, filled up with zeros.

    On one device by FFT. Over a mesh by a matmul with cosines and sines: XLA cuts a matmul by its rows, but gathers
    the whole batch on every device for an FFT (jax 0.10). The two differ by rounding, 1e-6 of the greatest power.
    """
    frames = frames.astype(jnp.float32)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        spectrum = jnp.fft.rfft(frames, n_fft)  # [..., K]
        return jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    cycles = np.outer(np.arange(frames.shape[-1]), np.arange(n_fft // 2 + 1)) % n_fft / n_fft  # [W, K]
    waves = np.stack([np.cos(2 * np.pi * cycles), np.sin(2 * np.pi * cycles)]).astype(np.float32)  # [2, W, K]
    parts = jnp.einsum("...w,pwk->p...k", frames, waves, precision=jax.lax.Precision.HIGHEST)  # [2, ..., K]
    return jnp.square(parts).sum(axis=0)
