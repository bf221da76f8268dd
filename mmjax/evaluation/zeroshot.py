"""Zero-shot classification: a class is the mean embedding of sentences that name it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from etils import epath
from jax.sharding import Mesh

from mmjax.core.errors import UserError
from mmjax.core.types import Array, Batch
from mmjax.evaluation.evaluator import Embed, collect, unit
from mmjax.evaluation.retrieval import mesh_in_use, rank_counts

TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a picture showing a {}.",
    "a drawing of a {}.",
    "a small {}.",
    "a large {}.",
)
"""A short general set; '{}' is where the class name goes."""


def read_lines(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Returns the lines of a text file (local or remote), stripped, empty ones left out.

    Raises:
      UserError: the file is missing or empty.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"zero-shot: there is no file {str(path)!r}; it should hold one class name or template a line.")
    lines = tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    if not lines:
        raise UserError(f"zero-shot: {str(path)!r} is empty; it should hold one class name or template a line.")
    return lines


def class_embeddings(
    encode_text: Callable[[list[str]], Array],
    class_names: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    *,
    batch_size: int = 1024,
) -> np.ndarray:
    """Embeds every class as an ensemble of prompts.

    Args:
      encode_text: strings -> [n, E]; called with at most batch_size prompts.
      class_names: C names.
      templates: sentences with '{}' in place of the name.
      batch_size: prompts a call.

    Returns:
      [C, E] float32 unit vectors: the mean of the normalised prompts, normalised again.

    Raises:
      UserError: no names, no templates, or a template without '{}'.

    References:
      Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision, 3.1.4.
    """
    if isinstance(class_names, str) or not class_names or not templates:
        raise UserError(f"zero-shot: needs class names and templates; got {class_names!r} and {templates!r}.")
    for template in templates:
        if "{}" not in template:
            raise UserError(f"zero-shot: the template {template!r} has no '{{}}' where the class name goes.")
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    parts = [prompts[i : i + batch_size] for i in range(0, len(prompts), batch_size)]
    embedded = np.concatenate([np.asarray(encode_text(part), np.float32) for part in parts])  # [C * T, E]
    per_class = unit(embedded).reshape(len(class_names), len(templates), -1)  # [C, T, E]
    return unit(per_class.mean(axis=1))  # [C, E]


def zeroshot_metrics(
    embeddings: Array,
    class_embedding: Array,
    labels: Array,
    *,
    ks: Sequence[int] = (1, 5),
    chunk: int = 1024,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Classifies by the nearest class.

    Args:
      embeddings: [N, E] unit vectors.
      class_embedding: [C, E] unit vectors.
      labels: [N] int in [0, C).
      ks: cut-offs of top_k.
      chunk: rows in one block of scores.
      mesh: see `retrieval.rank_counts`.

    Returns:
      `top_1`, `top_5` (shares of the examples) and `mean_per_class` (top-1 averaged over the classes that occur).
      Tied classes count in expectation, see `retrieval`.

    Raises:
      UserError: a label that is no class, or shapes that disagree.
    """
    labels, classes = np.asarray(labels), len(class_embedding)
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise UserError(
            f"zero-shot: labels run from {labels.min()} to {labels.max()}, but there are {classes} class names; "
            f"labels must be 0 to {classes - 1}."
        )
    counts = rank_counts(embeddings, class_embedding, labels, np.arange(classes), chunk=chunk, mesh=mesh)
    metrics = {f"top_{k}": float(counts.hit_at(k).mean()) for k in ks}
    sizes = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=counts.hit_at(1), minlength=classes)
    return metrics | {"mean_per_class": float(np.mean(hits[sizes > 0] / sizes[sizes > 0]))}


@dataclasses.dataclass(frozen=True)
class ZeroShotEvaluator:
    """Zero-shot classification of one modality; under `jax.set_mesh` the ranking is cut over all its devices.

    Attributes:
      class_names: C names, or the path of a file with one a line.
      templates: prompts with '{}', or the path of a file with one a line.
      modality: what is classified.
      names: the modality that class names are words of.
      label: the name in `Batch.targets` of the int class [B].
      ks: cut-offs of top_k.
    """

    class_names: Sequence[str] | str
    templates: Sequence[str] | str = TEMPLATES
    modality: str = "image"
    names: str = "text"
    label: str = "label"
    ks: Sequence[int] = (1, 5)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is classified."""
        return (self.modality,)

    @property
    def needs(self) -> dict[str, str]:
        """An encoder of prompts."""
        return {"encode_text": self.names}

    def __call__(
        self, embed: Embed, batches: Iterable[Batch], encode_text: Callable[[list[str]], Array]
    ) -> dict[str, float]:
        """Embeds the classes and the examples; see `zeroshot_metrics`.

        Raises:
          UserError: the batches have no such target, or see `class_embeddings`.
        """
        names, templates = (
            read_lines(value) if isinstance(value, str) else value for value in (self.class_names, self.templates)
        )
        classes = class_embeddings(encode_text, names, templates)
        found = collect(embed, batches, (self.modality,))[self.modality]
        labels = found.target(self.label)
        return zeroshot_metrics(found.values, classes, labels, ks=self.ks, mesh=mesh_in_use())
