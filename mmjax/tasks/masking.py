"""Which patches and words of a batch are hidden: the settings of masked modelling of an image and its text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mmjax.core.errors import UserError
from mmjax.core.types import Array, Stream
from mmjax.layers.dropout import fold
from mmjax.layers.masked_inputs import hide_patches, hide_words, num_hidden


@dataclasses.dataclass(frozen=True)
class Masking:
    """Hides patches of images and words of texts; see layers.masked_inputs.

    Attributes:
      patch_size: of the image encoder, in pixels.
      vocab_size: ids of the text are below it, the mask token's too.
      mask_id: of the mask token.
      special: ids that are no words.
      image_share, text_share: that is hidden.

    Raises:
      UserError: a share that is not in (0, 1], or ids that are not below vocab_size.

    References:
      Bao et al., BEiT, 2022 (40 % of the patches); Devlin et al., BERT, 2019 (15 % of the words).
    """

    patch_size: int
    vocab_size: int
    mask_id: int
    special: Sequence[int] = (0, 1, 2)
    image_share: float = 0.4
    text_share: float = 0.15

    def __post_init__(self):
        num_hidden(1, self.image_share), num_hidden(1, self.text_share)
        object.__setattr__(self, "special", tuple(self.special))
        for number in (self.mask_id, *self.special):
            if not 0 <= number < self.vocab_size:
                raise UserError(
                    f"Masking: mask_id={self.mask_id} and special={self.special} must be ids below vocab_size="
                    f"{self.vocab_size}; {number} is not."
                )

    def num_patches(self, image: Stream) -> int:
        """Returns into how many patches the encoder cuts each picture."""
        _, height, width, _ = image.values.shape
        return (height // self.patch_size) * (width // self.patch_size)

    def __call__(self, streams: Mapping[str, Stream], image: str, text: str, rng: Array) -> dict[str, Stream]:
        """Returns both streams with `hidden`, from keys [B]."""
        words = {"vocab_size": self.vocab_size, "mask_id": self.mask_id, "special": self.special}
        return {
            image: hide_patches(streams[image], self.num_patches(streams[image]), self.image_share, fold(rng, 0)),
            text: hide_words(streams[text], share=self.text_share, rng=fold(rng, 1), **words),
        }
