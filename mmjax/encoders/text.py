"""Text encoder: a causal or bidirectional transformer over token ids, as in CLIP, SigLIP and BERT."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, one_of
from mmjax.core.mesh import constrain_batch
from mmjax.core.types import Stream, Tokens
from mmjax.layers.dropout import dropout, fold
from mmjax.layers.norm import layer_norm
from mmjax.layers.pooling import Pool
from mmjax.layers.posemb import LearnedPositions
from mmjax.layers.transformer import transformer_of


class TextEncoder(nn.Module):
    """int32 token ids [B, N] with mask [B, N] -> Tokens [B, N, width].

    What is hidden of a text (`Stream.hidden`) the ids say already: a mask token is a word of the vocabulary.

    Attributes:
      vocab_size: rows of the embedding table; ids must be below it.
      width, depth, num_heads, mlp_dim: sizes.
      causal: position n sees positions <= n only (CLIP); else all unmasked ones.
      mask_padding: hide padding from attention. SigLIP was trained with padding visible.
      pool: 'last' unmasked token (CLIP), 'last_position' of the context (SigLIP), 'first', 'mean', 'attention', 'none'.
      posemb: 'learned' (added to the embeddings) or 'rotary'.
      max_length: rows of the table of learned positions (BERT: 512); None: as many as the context is long.
      token_types: rows of a table of segment embeddings, 0 for none (BERT: 2); a stream is one segment, the first.
      embedding_norm: LayerNorm over the embeddings before the first block (BERT).
      activation, dropout, drop_path, scan, remat, batch_parts, dtype: as in layers.transformer.
      norm: 'pre', with one more LayerNorm after the last block, or 'post' without it (BERT); see layers.transformer.

    Raises:
      UserError: values that are not [B, N].
    """

    vocab_size: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    causal: bool = True
    mask_padding: bool = True
    pool: str = "last"
    posemb: str = "learned"
    max_length: int | None = None
    token_types: int = 0
    embedding_norm: bool = False
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    scan: bool = True
    remat: str = "none"
    batch_parts: int = 1
    dtype: Any = jnp.float32
    norm: str = "pre"

    @nn.compact
    def __call__(self, stream: Stream, rng: jax.Array | None = None) -> Tokens:
        if stream.values.ndim != 2:
            raise UserError(f"text: expected values [batch, tokens], got {tuple(stream.values.shape)}.")
        x = constrain_batch(dropout(self._embed(stream.values), self.dropout, fold(rng, 0)))  # [B, N, D]
        visible = stream.mask if self.mask_padding else None
        x = transformer_of(self, use_rotary=self.posemb == "rotary")(x, visible, fold(rng, 1))
        if self.norm == "pre":
            x = layer_norm("norm", x, self.dtype)
        return Tokens(x, stream.mask, self._pool(x, stream.mask), stream.hidden)

    def _embed(self, ids: jax.Array) -> jax.Array:
        init = nn.initializers.normal(0.02)
        x = nn.Embed(self.vocab_size, self.width, embedding_init=init, dtype=self.dtype, name="vocabulary")(ids)
        one_of(self.posemb, ("learned", "rotary"), "posemb")
        if self.token_types:
            x = x + self.param("token_types", init, (self.token_types, self.width), jnp.float32)[0].astype(x.dtype)
        if self.posemb == "learned":
            x = LearnedPositions(0.01, self.max_length, name="positions")(x)  # [B, N, D]
        return layer_norm("norm_embedding", x, self.dtype) if self.embedding_norm else x

    def _pool(self, x: jax.Array, mask: jax.Array) -> jax.Array | None:
        if self.pool == "last_position":
            return x[:, -1]  # [B, D]
        pool = Pool(self.pool, self.num_heads, self.mlp_dim, self.activation, dtype=self.dtype, name="pool")
        return pool(x, mask if self.mask_padding else jnp.ones_like(mask))
