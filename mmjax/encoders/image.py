"""Image encoder: the vision transformer, in the sizes and with the details of CLIP and SigLIP."""

from __future__ import annotations

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, listed, one_of
from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Stream, Tokens
from mmjax.layers.dropout import fold, keep_tokens
from mmjax.layers.norm import layer_norm
from mmjax.layers.patchify import PatchEmbedding
from mmjax.layers.pooling import Pool, class_token
from mmjax.layers.posemb import LearnedPositions, sincos_2d
from mmjax.layers.transformer import transformer_of

VIT_SIZES = {
    "Ti": {"width": 192, "depth": 12, "num_heads": 3, "mlp_dim": 768},
    "S": {"width": 384, "depth": 12, "num_heads": 6, "mlp_dim": 1536},
    "B": {"width": 768, "depth": 12, "num_heads": 12, "mlp_dim": 3072},
    "L": {"width": 1024, "depth": 24, "num_heads": 16, "mlp_dim": 4096},
    "H": {"width": 1280, "depth": 32, "num_heads": 16, "mlp_dim": 5120},
    "So400m": {"width": 1152, "depth": 27, "num_heads": 16, "mlp_dim": 4304},
}
"""Width, depth, heads and MLP width by name (Dosovitskiy et al. 2021; Alabdulmohsin et al. 2023 for So400m)."""


def vit_sizes(variant: str) -> dict[str, int]:
    """Returns the sizes of a variant such as 'B/16' (name / patch_size), as keyword arguments of ImageEncoder.

    Raises:
      UserError: an unknown variant.
    """
    name, _, patch_size = variant.partition("/")
    if not patch_size.isdigit():
        raise UserError(
            f"ViT variant {variant!r}: expected NAME/PATCH with the patch size in pixels, as in 'B/16'; NAME is one of "
            f"{listed(VIT_SIZES)}."
        )
    one_of(name, VIT_SIZES, f"ViT variant {variant!r}")
    return {**VIT_SIZES[name], "patch_size": int(patch_size)}


class ImageEncoder(nn.Module):
    """Vision transformer: uint8 pixels [B, H, W, 3] -> Tokens [B, N, width].

    Attributes:
      patch_size, width, depth, num_heads, mlp_dim: sizes; see `vit_sizes`.
      pool: 'first' puts a class token before the patches (CLIP); 'attention' is SigLIP's; see layers.pooling.
      posemb: 'learned' or 'sincos2d'.
      pre_norm: LayerNorm before the first block (CLIP).
      patch_bias: bias of the patch embedding.
      mean, std: per channel, of pixels in [0, 1]; normalised here, on the device.
      patch_dropout: share of patches left out of each example in training (FLIP), where none is hidden.
      mask_token: learn a token that stands for every hidden patch (`Stream.hidden` [B, N]), before positions are added
        (BEiT).
      activation, dropout, drop_path, scan, remat, batch_parts, dtype: as in layers.transformer.

    Raises:
      UserError: values that are not [B, H, W, 3], sides that patch_size does not divide, or hidden patches that are
        not [B, N] or that there is no mask_token for.

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words, 2021; Bao et al., BEiT, 2022, section 2.3.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    pool: str = "first"
    posemb: str = "learned"
    pre_norm: bool = False
    patch_bias: bool = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    patch_dropout: float = 0.0
    mask_token: bool = False
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    batch_parts: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, stream: Stream, rng: jax.Array | None = None) -> Tokens:
        x = self._embed(self._normalise(stream.values), stream.hidden)  # [B, N, D]
        if rng is not None and self.patch_dropout > 0 and stream.hidden is None:
            x = self._drop_patches(x, rng)
        mask = einops.repeat(stream.mask.any(axis=1), "b -> b n", n=x.shape[1])  # [B, N]
        x = constrain_batch(layer_norm("norm_pre", x, self.dtype) if self.pre_norm else x)
        x = transformer_of(self)(x, None, fold(rng, 1))  # the tokens of an example are there all or none
        x = layer_norm("norm", x, self.dtype)
        pool = Pool(self.pool, self.num_heads, self.mlp_dim, self.activation, dtype=self.dtype, name="pool")
        return Tokens(x, mask, pool(x, mask), self._hidden(stream.hidden, x.shape[1]))

    def _normalise(self, pixels: jax.Array) -> jax.Array:
        if pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise UserError(f"image: expected values [batch, height, width, 3], got {tuple(pixels.shape)}.")
        mean, std = jnp.asarray(self.mean, jnp.float32), jnp.asarray(self.std, jnp.float32)
        return ((pixels.astype(jnp.float32) / 255.0 - mean) / std).astype(self.dtype)

    def _embed(self, images: jax.Array, hidden: jax.Array | None) -> jax.Array:
        patches = PatchEmbedding(self.patch_size, self.width, self.patch_bias, self.dtype, name="patches")
        x = self._hide(patches(images), hidden)  # [B, N, D]
        one_of(self.posemb, ("learned", "sincos2d"), "posemb")
        if self.posemb == "sincos2d":
            rows, columns = images.shape[1] // self.patch_size, images.shape[2] // self.patch_size
            x = x + jnp.asarray(sincos_2d(rows, columns, self.width), self.dtype)
        if self.pool == "first":
            x, _ = class_token(self, x, jnp.ones(x.shape[:2], bool))  # [B, 1 + N, D]
        return LearnedPositions(self.width**-0.5, name="positions")(x) if self.posemb == "learned" else x

    def _hide(self, x: jax.Array, hidden: jax.Array | None) -> jax.Array:
        if self.mask_token:
            token = self.param("mask_token", nn.initializers.normal(0.02), (self.width,), jnp.float32)
        if hidden is None:
            return x
        if not self.mask_token:
            raise UserError(
                "image: patches are hidden, but the encoder has no token for them; set its mask_token to True."
            )
        if hidden.shape != x.shape[:2]:
            raise UserError(
                f"image: expected hidden {list(x.shape[:2])}, one for each patch, got {list(hidden.shape)}."
            )
        return jnp.where(hidden[..., None], token.astype(x.dtype), x)

    def _hidden(self, hidden: jax.Array | None, tokens: int) -> jax.Array | None:
        return None if hidden is None else jnp.pad(hidden, ((0, 0), (tokens - hidden.shape[1], 0)))

    def _drop_patches(self, x: jax.Array, rng: jax.Array) -> jax.Array:
        first = 1 if self.pool == "first" else 0
        patches = x.shape[1] - first
        kept = first + keep_tokens(patches, round(patches * (1 - self.patch_dropout)), fold(rng, 0))  # [B, K]
        return jnp.concatenate([x[:, :first], jnp.take_along_axis(x, kept[..., None], axis=1)], axis=1)
