"""MultimodalModel: encoders -> fusion -> decoders, composed by dict."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.types import Outputs, Stream, Tokens
from mmjax.layers.dropout import fold
from mmjax.layers.modality_dropout import drop_modalities

ENCODERS, TEACHERS = "encoders_", "teachers_"
"""What the keys of the parameters of encoders and teachers begin with; their names follow."""


def teacher_patterns(names: Iterable[str]) -> list[str]:
    """Returns patterns of the paths of all parameters of the teachers of these names."""
    return [re.escape(TEACHERS + name) + "/.*" for name in names]


class MultimodalModel(nn.Module):
    """Encodes each stream that is given, fuses their tokens and decodes what comes of it.

    Any modality may be missing from any example (a mask row that is all False), or from the whole call. One that is
    given as Tokens is encoded already, and goes to the fusion as it is.

    Attributes:
      encoders: modality -> module, called as encoder(stream, rng) -> Tokens.
      fusion: module called as fusion({modality: Tokens}, rng) -> Outputs.
      decoders: name -> module, called as decoder(outputs, rng) -> arrays, which become `Outputs.predictions[name]`.
      missing: module called as missing({modality: Tokens}, rng) -> ({modality: Tokens}, penalties), which fills in
        what an example lacks before the fusion; None leaves it out.
      modality_dropout: modality -> probability of hiding it from the model in training, never all of an example.
      scalars: name -> initial value of learned scalars, given out in `Outputs.scalars` (the weights of several losses).
      teachers: name -> module, called as teacher(streams, None) with the streams of its `modalities`, undropped and
        with nothing hidden; what it gives becomes `Outputs.teachings[name]`, behind a stopped gradient. Its parameters
        `teachers_NAME/...` stay as `Experiment.teachers` loads them. Another MultimodalModel can be one.

    Raises:
      UserError: a stream without an encoder, or no stream at all.
    """

    encoders: Mapping[str, nn.Module]
    fusion: nn.Module
    decoders: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    missing: nn.Module | None = None
    modality_dropout: Mapping[str, float] = dataclasses.field(default_factory=dict)
    scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)
    teachers: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that it encodes."""
        return tuple(self.encoders)

    @nn.compact
    def __call__(self, streams: Mapping[str, Stream | Tokens], rng: jax.Array | None = None) -> Outputs:
        """Maps streams (any subset of the encoders' modalities) to Outputs; rng [B] keys, or None for no noise."""
        self._check(streams)
        teachings = self._teach(streams)
        streams = {name: stream for name, stream in streams.items() if name in self.encoders}
        last = len(self.encoders)
        if rng is not None and self.modality_dropout:
            rates = {name: rate for name, rate in self.modality_dropout.items() if name in streams}
            streams = drop_modalities(streams, rates, fold(rng, last + 1))
        tokens = self._encode(streams, rng)
        filled, penalties = (tokens, {}) if self.missing is None else self.missing(tokens, fold(rng, last + 2))
        outputs = self.fusion(filled, fold(rng, last))
        outputs = outputs.replace(
            tokens=tokens,
            penalties=outputs.penalties | penalties,
            scalars=outputs.scalars | self._scalars(),
            teachings=teachings,
        )
        predictions = {
            name: decoder(outputs, fold(rng, last + 3 + number))
            for number, (name, decoder) in enumerate(self.decoders.items())
        }
        return outputs.replace(predictions=predictions)

    def _encode(self, streams: Mapping[str, Stream | Tokens], rng: jax.Array | None) -> dict[str, Tokens]:
        return {
            name: given if isinstance(given := streams[name], Tokens) else encoder(given, fold(rng, number))
            for number, (name, encoder) in enumerate(self.encoders.items())
            if name in streams
        }

    def _teach(self, streams: Mapping[str, Stream | Tokens]) -> dict[str, Any]:
        """Returns teacher -> what it gives, of those that have any of their modalities, not encoded, in this call."""
        whole = {name: stream.replace(hidden=None) for name, stream in streams.items() if isinstance(stream, Stream)}
        seen = {
            name: {modality: whole[modality] for modality in teacher.modalities if modality in whole}
            for name, teacher in self.teachers.items()
        }
        return {name: jax.lax.stop_gradient(self.teachers[name](given, None)) for name, given in seen.items() if given}

    def _scalars(self) -> dict[str, jax.Array]:
        initial = {name: nn.initializers.constant(value) for name, value in self.scalars.items()}
        return {name: self.param(name, init, (), jnp.float32) for name, init in initial.items()}

    def _check(self, streams: Mapping[str, Stream | Tokens]) -> None:
        taught = {name for teacher in self.teachers.values() for name in teacher.modalities}
        for name in streams:
            if name not in self.encoders and name not in taught:
                raise UserError(
                    f"the batch has a stream {name!r} but the model has no encoder for it."
                    f"{nearest(name, self.encoders)} Its encoders are: {listed(self.encoders)}."
                )
        if not set(streams) & set(self.encoders):
            raise UserError(f"the batch has no stream of them; the model encodes {listed(self.encoders)}.")
        for name in self.modality_dropout:
            if name not in self.encoders:
                raise UserError(
                    f"model.modality_dropout names {name!r}, which is no modality of the model."
                    f"{nearest(name, self.encoders)} They are: {listed(self.encoders)}."
                )
