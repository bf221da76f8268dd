"""How well images come back from their discrete codes, and how much of the codebook they use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import scipy.stats

from mmjax.core.errors import one_of
from mmjax.core.types import Array, Batch
from mmjax.evaluation.evaluator import Embed, collect
from mmjax.tasks.reconstruction import squared_error


@dataclasses.dataclass(frozen=True)
class ReconstructionEvaluator:
    """Error of the pixels, and usage of the codebook, over a whole data set.

    Attributes:
      modality: of the images.
      patch_size: of the decoder.
      codebook_size: K.
      head, codes: decoders that give pixels [B, N, P * P * 3] in [0, 1] and codes [B, N].
    """

    modality: str = "image"
    patch_size: int = 16
    codebook_size: int = 8192
    head: str = "pixels"
    codes: str = "codes"

    @property
    def modalities(self) -> tuple[str, ...]:
        """The images alone."""
        return (self.modality,)

    def __call__(self, embed: Embed, batches: Iterable[Batch], **extra: Any) -> dict[str, float]:
        """Returns `mean_squared_error`, `psnr` in dB, `codes_used` (share of the book), `perplexity` of the codes."""

        def found(batch: Batch) -> Mapping[str, tuple[Array, Array]]:
            answers = embed(batch)
            for name in (self.head, self.codes):
                one_of(name, answers, "reconstruction: the decoder")
            images = batch.streams[self.modality].values
            error = squared_error(answers[self.head], images, self.patch_size)
            there = batch.streams[self.modality].present
            return {"error": (error, there), "codes": (answers[self.codes], there)}

        table = collect(found, batches, ("error", "codes"))
        error = float(table["error"].values.mean(dtype=np.float64))
        counts = np.bincount(table["codes"].values.reshape(-1), minlength=self.codebook_size)  # [K]
        return {
            "mean_squared_error": error,
            "psnr": float(-10 * np.log10(max(error, 1e-12))),
            "codes_used": float(np.mean(counts > 0)),
            "perplexity": float(np.exp(scipy.stats.entropy(counts))),
        }
