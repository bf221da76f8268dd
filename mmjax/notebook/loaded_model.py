"""A trained run as a model that takes strings and pictures."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import fiddle as fdl
import flax.linen as nn
import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from mmjax.core.errors import UserError, listed, nearest
from mmjax.core.mesh import batch_sharding
from mmjax.core.types import Array, Stream
from mmjax.data.transform import Transform
from mmjax.evaluation.evaluator import answers
from mmjax.evaluation.retrieval import top_k
from mmjax.evaluation.scores import Score
from mmjax.notebook import attention, inputs
from mmjax.notebook.evaluate import evaluate_on, evaluate_own
from mmjax.notebook.explain import explain, streams_of
from mmjax.notebook.explanation import Explanation


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A trained model with its preprocessing.

    Attributes:
      directory: of the run.
      step: of the checkpoint.
      config: the resolved experiment; nothing but its model is built.
      model: flax module.
      params: on mesh; the moving average where the run kept one.
      transforms: modality -> Transform.
      mesh: of devices.
      batch_size: rows of every call.
    """

    directory: epath.Path
    step: int
    config: fdl.Config
    model: nn.Module
    params: Any
    transforms: Mapping[str, Transform]
    mesh: Mesh
    batch_size: int

    def __repr__(self) -> str:
        count = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return (
            f"LoadedModel({str(self.directory)!r}, step {self.step}: {listed(self.transforms)}; {count:,} parameters)"
        )

    def encode(self, name: str, values: Any) -> np.ndarray:
        """Embeds values of one modality.

        Args:
          name: of the modality, as in the config.
          values: any number of what its transform takes, or one alone; see `inputs`. Read batch by batch.

        Returns:
          [N, E] float32 unit vectors.

        Raises:
          UserError: no such modality, a value that cannot be used, or a model that does not embed this modality alone.
        """
        transform = self.transform(name)
        rows = []
        for number, part in enumerate(inputs.batches(values, self.batch_size)):
            stream = inputs.to_stream(transform, part, self.batch_size, number * self.batch_size)
            embeddings = self.embed({name: stream})
            if name not in embeddings:
                raise UserError(f"encode: the model gives no embedding of {name!r}; it gives {listed(embeddings)}.")
            rows.append((embeddings[name], len(part)))
        return np.concatenate([np.asarray(values, np.float32)[:size] for values, size in rows])  # [N, E]

    def encode_image(self, images: Any) -> np.ndarray:
        """Embeds Pillow images, uint8 arrays [H, W, 3], paths or encoded bytes: [N, E] float32 unit vectors."""
        return self.encode("image", images)

    def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
        """Embeds strings: [N, E] float32 unit vectors."""
        return self.encode("text", texts)

    def predict(self, **values: Sequence[Any]) -> dict[str, np.ndarray]:
        """Predicts for N examples, each from the modalities that it has.

        Args:
          values: modality -> N values of what its transform takes, None where an example lacks it; a modality that is
            not given is missing from all.

        Returns:
          decoder -> [N, ...] float32: of a head the logits of its classes, or its values.

        Raises:
          UserError: no such modality, numbers of values that differ, a value that cannot be used, or no decoders.
        """
        for name, column in values.items():
            if not isinstance(column, (list, tuple, np.ndarray)):
                raise UserError(f"predict: {name} must be a list: a value, or None, of each example; got {column!r}.")
        sizes = {name: len(column) for name, column in values.items()}
        if len(set(sizes.values())) != 1 or not max(sizes.values()):
            raise UserError(f"predict: expected as many values, at least one, of each modality; got {sizes}.")
        for name in values:
            self.transform(name)  # says so where there is none
        rows = []
        for first in range(0, max(sizes.values()), self.batch_size):
            part = {name: list(column)[first : first + self.batch_size] for name, column in values.items()}
            streams = {
                name: inputs.to_stream(transform, part.get(name, []), self.batch_size, first)
                for name, transform in self.transforms.items()
            }
            rows.append(self.embed(streams))
        names = [name for name in rows[0] if name not in self.transforms]
        if not names:
            raise UserError(f"predict: the run {self.directory} has no decoders; it embeds {listed(rows[0])}.")
        parts = {name: [np.asarray(row[name], np.float32) for row in rows] for name in names}
        return {name: np.concatenate(part)[: max(sizes.values())] for name, part in parts.items()}

    def similarity(self, images: Any, texts: Any) -> np.ndarray:
        """Returns the cosine of every picture with every text, [pictures, texts] float32."""
        return self.encode_image(images) @ self.encode_text(texts).T

    def search(self, texts: Any, image_embeddings: Array, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Finds the pictures nearest to each text.

        Args:
          texts: strings.
          image_embeddings: [M, E], of `encode_image`.
          k: how many.

        Returns:
          Cosines [N, k] float32, falling, and rows of image_embeddings [N, k] int32.
        """
        return top_k(self.encode_text(texts), image_embeddings, k)

    def attention(self, value: Any, name: str = "image") -> np.ndarray:
        """Returns where each head of each layer looks in one picture: [layers, heads, h, w] float32.

        h and w are patches. With a class token a map is what that token looks at, else what all tokens look at on
        average; attention pooling is the last layer. See `attention.to_map`.

        Raises:
          UserError: the tokens are no square grid, or see `encode`.
        """
        layers = [attention.to_map(weights[0]) for weights in self.attention_weights(value, name)]
        return np.stack([layer for layer in layers if len(layer) == len(layers[0])])

    def attention_weights(self, values: Any, name: str = "image") -> list[np.ndarray]:
        """Returns the attention weights [N, heads, queries, keys] of every layer for at most batch_size values."""
        part = next(inputs.batches(values, self.batch_size))
        parts = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        stream = inputs.to_stream(self.transform(name), part, math.ceil(len(part) / parts) * parts)
        with jax.set_mesh(self.mesh):
            found = self._attend(self.params, jax.device_put({name: stream}, batch_sharding(self.mesh)))
        return [weights[: len(part)] for weights in attention.by_layer(found)]

    def explain(
        self, *, score: Score | None = None, permutations: int = 8, seed: int = 0, **values: Any
    ) -> Explanation:
        """Says why one example has its score: what in each modality speaks for it, and how much each modality counts.

        Args:
          score: see evaluation.scores; by default the probability of the class that is predicted, or the value of the
            first head, or the cosine of the two modalities given.
          permutations: sampled orders of the parts, where the score needs all modalities (a cosine).
          seed: of these.
          values: modality -> one value of what its transform takes; one that is None or not given is missing.

        Returns:
          See Explanation; a notebook shows it as a picture.

        Raises:
          UserError: no such modality, no value at all, a value that cannot be used, or no such score.
        """
        return explain(self, streams_of(self, values), score, permutations, seed)

    def transform(self, name: str) -> Transform:
        """Returns the preprocessing of one modality.

        Raises:
          UserError: the run has no such modality.
        """
        if name not in self.transforms:
            raise UserError(
                f"the run {self.directory} has no modality {name!r}.{nearest(name, self.transforms)} "
                f"It has: {listed(self.transforms)}."
            )
        return self.transforms[name]

    def embed(self, streams: Mapping[str, Stream]) -> dict[str, jax.Array]:
        """Returns modality or decoder -> [B, ...] of preprocessed streams, B a multiple of the devices of a batch."""
        with jax.set_mesh(self.mesh):
            return self._embed(self.params, jax.device_put(dict(streams), batch_sharding(self.mesh)))

    def evaluate(
        self,
        data: str | None = None,
        train_data: str | None = None,
        class_names: str | None = None,
        templates: str | None = None,
    ) -> dict[str, float]:
        """Returns 'evaluation/metric' -> value of the run's own evaluations, or of those that fit other data.

        Args:
          data: what `--data` takes; None is the run's own evaluations. See `evaluate.evaluate_on`.
          train_data: what the linear probe and k-NN learn from, where data has labels.
          class_names, templates: files of zero-shot classification, one name or prompt a line.

        Raises:
          UserError: there are no evaluations, or the data is not there or does not fit.
        """
        return evaluate_own(self) if data is None else evaluate_on(self, data, train_data, class_names, templates)

    @functools.cached_property
    def _embed(self) -> Any:
        rows = batch_sharding(self.mesh)
        embed = lambda params, streams: answers(self.model.apply({"params": params}, streams, None))  # noqa: E731
        return jax.jit(embed, out_shardings=rows)

    @functools.cached_property
    def _attend(self) -> Any:
        def attend(params: Any, streams: Mapping[str, Stream]) -> Any:
            return self.model.apply({"params": params}, streams, None, mutable=["intermediates"])[1]

        return jax.jit(attend)

    @functools.cached_property
    def compiled(self) -> dict[Any, Any]:
        """What is compiled for explanations: score or modality -> function."""
        return {}
