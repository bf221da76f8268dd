"""The values that travel through mmjax: Stream -> Tokens -> Outputs, and the Batch that starts it."""

from __future__ import annotations

import flax.struct
import jax
import numpy as np

Array = jax.Array | np.ndarray


@flax.struct.dataclass
class Stream:
    """The raw values of one modality for B examples.

    Attributes:
      values: [B, ...] as the data pipeline gives them: uint8 pixels [B, H, W, 3], int32 token ids [B, N].
      mask: [B, T] bool along the stream's own sequence axis (T = 1 for an image); False is padding. A row that
        is all False says that the modality is missing from that example.
    """

    values: Array
    mask: Array


@flax.struct.dataclass
class Tokens:
    """What an encoder makes of a Stream.

    Attributes:
      x: [B, N, D] compute dtype.
      mask: [B, N] bool; False is padding, an all-False row is a missing modality.
      pooled: [B, D] one vector an example, or None where the encoder does not pool.
    """

    x: Array
    mask: Array
    pooled: Array | None = None


@flax.struct.dataclass
class Batch:
    """What a training or evaluation step consumes.

    Attributes:
      streams: modality name -> Stream.
      group: [B] int32; examples of one group are positives of one another (two captions of one picture).
      mask: [B] bool; False marks a row that only fills the batch up.
      targets: name -> [B, ...] supervision that is not an input.
    """

    streams: dict[str, Stream]
    group: Array
    mask: Array
    targets: dict[str, Array] = flax.struct.field(default_factory=dict)

    @property
    def size(self) -> int:
        """B, the number of rows with padding."""
        return self.mask.shape[0]


@flax.struct.dataclass
class Outputs:
    """What a model gives a task.

    Attributes:
      tokens: modality -> Tokens.
      embeddings: modality -> [B, E] float32 unit vectors in the shared space.
      scalars: name -> [] float32 learned scalars that the loss needs (logit_scale, logit_bias).
    """

    tokens: dict[str, Tokens] = flax.struct.field(default_factory=dict)
    embeddings: dict[str, Array] = flax.struct.field(default_factory=dict)
    scalars: dict[str, Array] = flax.struct.field(default_factory=dict)
