"""FLAVA: masked modelling of image, of text and of both, matching, and contrastive alignment, in one step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from mmjax.core.errors import UserError, at_least, listed, one_of
from mmjax.core.types import Array, Batch, Outputs
from mmjax.layers.dropout import example_keys, fold
from mmjax.layers.masked_inputs import num_hidden
from mmjax.layers.patchify import patches_of
from mmjax.losses.hard_negatives import hard_negatives, take_places
from mmjax.losses.masked import masked_cross_entropy, masked_squared_error, normalised_patches
from mmjax.losses.ring import ring_softmax_contrastive
from mmjax.tasks.contrastive import both
from mmjax.tasks.masking import Masking
from mmjax.tasks.multi import weighted_sum
from mmjax.tasks.task import Apply, TaskLoss

OBJECTIVES = ("contrastive", "matching", "mim", "mlm", "mmm_image", "mmm_text")
"""Each that predicts is a decoder of the model by that name, too."""


@dataclasses.dataclass(frozen=True)
class Flava:
    """Pairs, images alone and texts alone in one batch; each objective counts its own rows.

    - mim, mlm: the hidden patches of an image alone, the hidden words of a text alone, from its encoder.
    - mmm_image, mmm_text: those of a pair, both with parts hidden, from the fusion.
    - matching: whether image and text belong together, from the joint vector: each pair against itself with one half,
      by a coin, replaced by a hard negative of its block (losses.hard_negatives).
    - contrastive: all pairs of the global batch (losses.ring).

    The model runs three times: on whole inputs, on inputs with parts hidden, and, from the fusion on, on the tokens of
    the mismatched pairs.

    Attributes:
      masking: what is hidden.
      image, text: the modalities.
      codes: teacher (`MultimodalModel.teachers`) whose codes of the patches are predicted; None: the pixels of each
        patch, normalised (He et al. 2022), by squared error.
      whole_pairs: match whole pairs, as ALBEF; else those with parts hidden, as FLAVA, which saves a fusion.
      block_size: rows that negatives are drawn from; with micro-batches, of one part.
      hardness: share of the contrastive loss's logit_scale by which negatives are drawn: 1 as ALBEF, 0 all alike. Where
        examples are few, hard ones alone teach it to take whatever it has not seen for a mismatch.
      weights: objective -> weight; 1 where there is none. 0 leaves that one out, and its decoder too.
      chunk_size: see losses.ring.

    Raises:
      UserError: a weight of no objective, or below 0, or all are 0.

    References:
      Singh et al., FLAVA: A Foundational Language And Vision Alignment Model, 2022, section 3.2; Li et al., Align
      before Fuse (ALBEF), 2021, section 3.2 (hard negatives).
    """

    masking: Masking
    image: str = "image"
    text: str = "text"
    codes: str | None = None
    whole_pairs: bool = False
    block_size: int = 32
    hardness: float = 1.0
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chunk_size: int | None = None

    passes: ClassVar[int] = 3
    of_whole: ClassVar[tuple[str, ...]] = ("matching",)

    def __post_init__(self):
        if wrong := sorted(set(self.weights) - set(OBJECTIVES)):
            raise UserError(f"Flava.weights names {listed(wrong)}; its objectives are {listed(OBJECTIVES)}.")
        at_least(0, "Flava.weights", **self.weights)
        at_least(0, "Flava", hardness=self.hardness)
        if not any(self._weighs(name) for name in OBJECTIVES):
            raise UserError("Flava.weights: all are 0, so nothing would be learned.")

    def check(self, model: Any, transforms: Mapping[str, Any]) -> None:
        """Raises UserError where the words that are hidden are not those of the model and of its tokenizer."""
        masking = self.masking
        rows = getattr(getattr(model, "encoders", {}).get(self.text), "vocab_size", masking.vocab_size)
        if masking.vocab_size > rows:
            raise UserError(
                f"task.masking.vocab_size is {masking.vocab_size}, but that of model.encoders.{self.text} is {rows}; "
                "a hidden word may become any id below the first, so set it to the second."
            )
        special = getattr(getattr(transforms.get(self.text), "tokenizer", None), "special", None)
        around = {getattr(special, name, None) for name in ("bos", "eos", "pad")} - {None}
        if words := sorted(around - set(masking.special)):
            raise UserError(
                f"task.masking.special is {masking.special}, but the tokenizer of {self.text!r} puts {words} around a "
                "text, which would be hidden as words are; add them, and see that mask_id is its mask token."
            )

    def _weighs(self, name: str) -> bool:
        return self.weights.get(name, 1.0) > 0

    def embed(self, apply: Apply, params: Any, batch: Batch, rng: Array | None) -> tuple[Any, Any]:
        """Returns (the embeddings of both, [B] loss, accuracy and count of each other objective), and logit_scale.

        Without keys (rng None) what is hidden and mismatched is drawn from fixed ones.
        """
        for name in (self.image, self.text):
            one_of(name, batch.streams, "Flava: the modality")
        streams = {name: batch.streams[name] for name in (self.image, self.text)}
        keys = example_keys(jax.random.key(0), batch.size) if rng is None else fold(rng, 0)  # [B]
        with jax.named_scope("objective_contrastive"):
            whole = apply(params, streams, fold(rng, 1))
        with jax.named_scope("objective_masked"):
            masked = apply(params, self.masking(streams, self.image, self.text, fold(keys, 0)), fold(rng, 2))
            found = self._predicted(masked, self._targets(whole, batch), self._classes(whole))
        if self._weighs("matching"):
            with jax.named_scope("objective_matching"):
                pairs = whole if self.whole_pairs else masked
                found["matching"] = self._matching(apply, params, whole, pairs, batch, fold(keys, 1), fold(rng, 3))
        by_example = {"found": found, "penalties": masked.penalties}
        if not self._weighs("contrastive"):
            return by_example, {}
        pair, logit_scale = self._aligned(whole)
        return by_example | {"pair": pair, "both": both(whole, *streams)}, {"logit_scale": logit_scale}

    def _aligned(self, whole: Outputs) -> tuple[tuple[Array, Array], Array]:
        """Returns the embeddings of both modalities, and logit_scale."""
        for name in (self.image, self.text):
            one_of(name, whole.embeddings, "Flava: the embedding")
        one_of("logit_scale", whole.scalars, "Flava: the learned scalar")
        return (whole.embeddings[self.image], whole.embeddings[self.text]), whole.scalars["logit_scale"]

    def loss(self, by_example: Any, shared: Any, batch: Batch) -> TaskLoss:
        """Returns the weighted sum of the objectives' means; metrics are 'objective/loss', 'objective/accuracy', ..."""
        rows = self._rows(batch)
        parts = {}
        for name, (values, accuracy, count) in by_example["found"].items():
            part = TaskLoss(values, rows[name] & (count > 0))
            if accuracy is not None:
                part = part.replace(metrics={"accuracy": part.replace(values=accuracy).mean_of_values()})
            parts[name] = part
        if self._weighs("contrastive"):
            with jax.named_scope("objective_contrastive"):
                mask = rows["contrastive"] & (by_example["both"] > 0)
                options = {"group": batch.group, "mask": mask, "chunk_size": self.chunk_size}
                values = ring_softmax_contrastive(*by_example["pair"], **shared, **options)
            pairs = jnp.sum(mask.astype(jnp.float32))
            parts["contrastive"] = TaskLoss(values, mask, {**shared, "pairs": pairs})
        weights = {name: jnp.float32(self.weights.get(name, 1.0)) for name in parts}
        summed = weighted_sum(parts, weights).penalised(by_example["penalties"])
        return summed.replace(parts={}, weights={})

    def _rows(self, batch: Batch) -> dict[str, Array]:
        """Returns objective -> the rows [B] that it counts."""
        image, text = (batch.streams[name].present & batch.mask for name in (self.image, self.text))
        both = image & text
        alone = {"mim": image & ~text, "mlm": text & ~image}
        return alone | {name: both for name in OBJECTIVES if name not in alone}

    def _targets(self, whole: Outputs, batch: Batch) -> dict[str, Array]:
        """Returns modality -> what each patch [B, N] or [B, N, P] and each word [B, N] is."""
        words = batch.streams[self.text].values
        if self.codes is None:
            pixels = patches_of(batch.streams[self.image].values, self.masking.patch_size)
            return {self.image: normalised_patches(pixels), self.text: words}
        one_of(self.codes, whole.teachings, "Flava.codes: the teacher")
        codes = whole.teachings[self.codes].codes[self.image].index  # [B, N]
        image = batch.streams[self.image]
        if codes.shape[1] != (patches := self.masking.num_patches(image)):
            height, width = image.values.shape[1:3]
            raise UserError(
                f"Flava.codes: the teacher {self.codes!r} gives {codes.shape[1]} codes for the {patches} patches of "
                f"{self.masking.patch_size} pixels of an image of {height} x {width}; train it with the same "
                "patch_size and image size."
            )
        return {self.image: codes, self.text: words}

    def _classes(self, whole: Outputs) -> dict[str, int]:
        """Returns modality -> how many codes or words there are; none of what is no class."""
        words = {self.text: self.masking.vocab_size}
        if self.codes is None:
            return words
        return words | {self.image: whole.teachings[self.codes].codes[self.image].shares.shape[-1]}

    def _predicted(self, masked: Outputs, targets: Mapping[str, Array], classes: Mapping[str, int]) -> dict[str, Any]:
        """Returns objective -> (loss, accuracy or None, number of hidden tokens), each [B] float32."""
        modality = {"mim": self.image, "mlm": self.text, "mmm_image": self.image, "mmm_text": self.text}
        found = {}
        for name, of in modality.items():
            if not self._weighs(name):
                continue
            one_of(name, masked.predictions, "Flava: the decoder")
            answer = masked.predictions[name]
            share = self.masking.image_share if of == self.image else self.masking.text_share
            needed, most = num_hidden(targets[of].shape[1], share), answer["positions"].shape[1]
            if most < needed:
                raise UserError(
                    f"Flava: the decoder {name!r} predicts {most} tokens of an example at most, and of "
                    f"{targets[of].shape[1]} tokens a share of {share} hides {needed}; set its `most` to {needed}."
                )
            if (size := answer["logits"].shape[-1]) < classes.get(of, size):
                raise UserError(
                    f"Flava: the decoder {name!r} tells {size} classes, but what {of!r} is made of is one of "
                    f"{classes[of]}; set its `size` to {classes[of]}."
                )
            places = answer["positions"] - (masked.tokens[of].x.shape[1] - targets[of].shape[1])  # [B, M]
            found[name] = _judged(answer, jax.vmap(lambda x, place: x[place])(targets[of], jnp.maximum(places, 0)))
        return found

    def _matching(
        self, apply: Apply, params: Any, whole: Outputs, pairs: Outputs, batch: Batch, keys: Array, rng: Array | None
    ) -> tuple[Array, Array, Array]:
        """Returns (loss, accuracy, whether there is a negative), each [B] float32."""
        one_of("matching", pairs.predictions, "Flava: the decoder")
        seen = both(whole, self.image, self.text) * both(pairs, self.image, self.text)  # [B]
        streams, found = self._mismatched(whole, pairs, batch, seen > 0, keys)
        mismatched = apply(params, streams, rng)
        wrong = mismatched.predictions["matching"]
        cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
        answers = ((pairs.predictions["matching"], 1), (wrong, 0))  # [B, 2]
        losses = [cross_entropy(logits, jnp.full(found.shape, label)) for logits, label in answers]
        right = [(logits.argmax(axis=-1) == label).astype(jnp.float32) for logits, label in answers]
        return sum(losses) / 2, sum(right) / 2, found * both(mismatched, self.image, self.text)

    def _mismatched(
        self, whole: Outputs, pairs: Outputs, batch: Batch, seen: Array, keys: Array
    ) -> tuple[dict[str, Any], Array]:
        """Returns the tokens of both modalities, one of them another row's that is seen [B], and found [B]."""
        (image, text), logit_scale = self._aligned(whole)
        mask = self._rows(batch)["matching"] & seen
        options = {"group": batch.group, "mask": mask, "block_size": self.block_size}
        options["logit_scale"] = self.hardness * logit_scale
        other_text, found = hard_negatives(image, text, rng=fold(keys, 0), **options)
        other_image, _ = hard_negatives(text, image, rng=fold(keys, 1), **options)
        coin = jax.vmap(jax.random.bernoulli)(fold(keys, 2))  # [B]
        own = jnp.arange(batch.size, dtype=jnp.int32) % self.block_size
        places = {self.image: jnp.where(coin, own, other_image), self.text: jnp.where(coin, other_text, own)}
        return {n: take_places(pairs.tokens[n], place, self.block_size) for n, place in places.items()}, found


def _judged(answer: Mapping[str, Array], targets: Array) -> tuple[Array, Array | None, Array]:
    """Returns (loss, accuracy, number of hidden tokens) of a MaskedHead, each [B]; values have no accuracy."""
    count = answer["mask"].sum(axis=1).astype(jnp.float32)
    if targets.ndim == 3:
        return masked_squared_error(answer["logits"], targets, answer["mask"]), None, count
    return *masked_cross_entropy(answer["logits"], targets, answer["mask"]), count
