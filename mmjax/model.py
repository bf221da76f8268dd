"""MultimodalModel: encoders -> fusion -> decoders, composed by dict."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.types import Outputs, Stream
from mmjax.layers.dropout import fold


class MultimodalModel(nn.Module):
    """Encodes each stream that is given and fuses their tokens.

    Attributes:
      encoders: modality -> module, called as encoder(stream, rng) -> Tokens.
      fusion: module called as fusion({modality: Tokens}, rng) -> Outputs.

    Raises:
      UserError: a stream without an encoder.
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module

    def __call__(self, streams: Mapping[str, Stream], rng: jax.Array | None = None) -> Outputs:
        """Maps streams (any subset of the encoders' modalities) to Outputs; rng [B] keys, or None for no noise."""
        for name in streams:
            if name not in self.encoders:
                raise UserError(
                    f"the batch has a stream {name!r} but the model has no encoder for it."
                    f"{nearest(name, self.encoders)} Its encoders are: {listed(self.encoders)}."
                )
        tokens = {
            name: encoder(streams[name], fold(rng, number))
            for number, (name, encoder) in enumerate(self.encoders.items())
            if name in streams
        }
        return self.fusion(tokens, fold(rng, len(self.encoders)))
