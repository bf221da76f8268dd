"""The values that travel through mmjax: Stream -> Tokens -> Outputs, and the Batch that starts it."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import numpy as np

from mmjax.core.errors import UserError

Array = jax.Array | np.ndarray


@flax.struct.dataclass
class Stream:
    """The raw values of one modality for B examples.

    Attributes:
      values: [B, ...] as the data pipeline gives them: uint8 pixels [B, H, W, 3], int32 token ids [B, N]. Where floats
        are measurements, NaN is one that was not made (a channel that is missing from a recording).
      mask: [B, T] bool along the stream's own sequence axis (T = 1 for an image); False is padding. A row that
        is all False says that the modality is missing from that example.
      hidden: [B, N] bool, which of the N tokens that an encoder will make (patches of an image, words of a text) are to
        be predicted from the others; None: nothing is. An encoder with a mask token puts it in their place.
    """

    values: Array
    mask: Array
    hidden: Array | None = None

    @property
    def present(self) -> Array:
        """[B] bool: which examples have this modality."""
        return self.mask.any(axis=1)


@flax.struct.dataclass
class Tokens:
    """What an encoder makes of a Stream.

    Attributes:
      x: [B, N, D] compute dtype.
      mask: [B, N] bool; False is padding, an all-False row is a missing modality.
      pooled: [B, D] one vector an example, or None where the encoder does not pool.
      hidden: [B, N] bool, `Stream.hidden` in the order of these tokens (a class token is never hidden), or None.
    """

    x: Array
    mask: Array
    pooled: Array | None = None
    hidden: Array | None = None

    @property
    def present(self) -> Array:
        """[B] bool: which examples have any token."""
        return self.mask.any(axis=1)


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


VOTE_RULES = ("mixture", "product")


@flax.struct.dataclass
class Votes:
    """What late fusion gives the heads: one vector a modality, each of which a head answers by itself.

    Attributes:
      vectors: modality -> [B, D].
      weights: modality -> [B] float32 weight of its answer; over the modalities they sum to 1, a missing one has 0.
      rule: how answers become one: 'mixture' (mean of probabilities) or 'product' (of experts).
    """

    vectors: dict[str, Array]
    weights: dict[str, Array]
    rule: str = flax.struct.field(pytree_node=False, default="mixture")


@flax.struct.dataclass
class Codes:
    """The tokens of one modality as codes of a learned book of K.

    Attributes:
      index: [B, N] int32, the code of each token.
      shares: [B, K] float32, the mean over an example's tokens of the probability of each code; it has a gradient.
      entropy: [B] float32 in nats, the mean over the tokens of the entropy of those probabilities.
    """

    index: Array
    shares: Array
    entropy: Array


@flax.struct.dataclass
class Outputs:
    """What a model gives a task.

    Attributes:
      tokens: modality -> Tokens, as the encoders made them.
      embeddings: modality -> [B, E] float32 unit vectors in the shared space.
      scalars: name -> [] float32 learned scalars that the loss needs (logit_scale, logit_bias).
      fused: the joint representation, pooled [B, D] included; None where the fusion makes none.
      in_context: modality -> its own Tokens as they leave a fusion that keeps every token; pooled is None.
      codes: modality -> its tokens as Codes, of a fusion that quantises.
      votes: of late fusion, else None.
      weights: modality -> [B] float32, how much each counts in `fused` or `votes`, where the fusion decides that.
      penalties: name -> [B] float32 what the fusion adds to the loss of each example, its coefficient included.
      predictions: decoder -> what it gives (a head: [B, K] float32).
      teachings: teacher -> what it gives, behind a stopped gradient (another model: its Outputs).
    """

    tokens: dict[str, Tokens] = flax.struct.field(default_factory=dict)
    embeddings: dict[str, Array] = flax.struct.field(default_factory=dict)
    scalars: dict[str, Array] = flax.struct.field(default_factory=dict)
    fused: Tokens | None = None
    in_context: dict[str, Tokens] = flax.struct.field(default_factory=dict)
    codes: dict[str, Codes] = flax.struct.field(default_factory=dict)
    votes: Votes | None = None
    weights: dict[str, Array] = flax.struct.field(default_factory=dict)
    penalties: dict[str, Array] = flax.struct.field(default_factory=dict)
    predictions: dict[str, Any] = flax.struct.field(default_factory=dict)
    teachings: dict[str, Any] = flax.struct.field(default_factory=dict)

    def joint(self, who: str) -> Array:
        """Returns the joint vector [B, D] that the fusion makes; `who` needs it.

        Raises:
          UserError: it makes none.
        """
        if self.fused is None or self.fused.pooled is None:
            raise UserError(f"{who}: the fusion gives no joint vector; use one that does, such as fusion.early.Early.")
        return self.fused.pooled
