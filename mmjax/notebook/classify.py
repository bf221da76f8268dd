"""Classification on data with a column 'label': zero-shot by the labels' words, and probes of the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import Source
from mmjax.evaluation.probes import knn_probe, linear_probe
from mmjax.evaluation.zeroshot import class_embeddings, zeroshot_metrics

if TYPE_CHECKING:
    from mmjax.notebook.loaded import LoadedModel

LABEL = "label"
"""The column of a record's class: a word, or a number."""


def zero_shot(run: LoadedModel, source: Source, modality: str, names: str) -> dict[str, dict[str, float]]:
    """Returns {'zeroshot': metrics}; nothing where the labels are numbers, which no prompt can name.

    Args:
      run: whose embeddings are compared.
      source: with the column 'label'; the classes are the labels that occur.
      modality: what is classified.
      names: the modality that the classes are named in.
    """
    features, labels = labelled(run, source, modality)
    classes, numbers = np.unique(labels, return_inverse=True)
    if all(name.lstrip("-").isdigit() for name in classes):
        return {}
    words = [name.replace("_", " ") for name in classes]
    prompts = class_embeddings(lambda texts: run.encode(names, texts), words)
    ks = (1, 5) if len(words) > 5 else (1,)
    return {"zeroshot": zeroshot_metrics(features, prompts, numbers, ks=ks)}


def probes(run: LoadedModel, source: Source, train: Source, modality: str) -> dict[str, dict[str, float]]:
    """Returns {'linear': metrics, 'knn': metrics} of the features of one modality, learned on train."""
    sets = (*labelled(run, train, modality), *labelled(run, source, modality))
    return {"linear": linear_probe(*sets), "knn": knn_probe(*sets)}


def labelled(run: LoadedModel, source: Source, modality: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings [N, E] and labels [N] str of the good records.

    Raises:
      UserError: a record without a label.
    """
    transforms = {modality: run.transform(modality)}
    pipeline = Pipeline(source, transforms, run.batch_size, max_bad_share=run.config.data.max_bad_share)
    rows, masks = [], []
    for batch in pipeline.eval_batches():
        rows.append(np.asarray(run.embed(batch.streams)[modality]))
        masks.append(batch.mask)
    records = np.flatnonzero(np.concatenate(masks))
    labels = [_label(source.read(int(record))[LABEL], source, int(record)) for record in records]
    return np.concatenate(rows)[records], np.array(labels)


def _label(value: Any, source: Source, record: int) -> str:
    """Returns a label as text, of a value or a list of one."""
    values = np.asarray(value).reshape(-1)
    if not len(values) or values[0] is None or not str(values[0]).strip():
        raise UserError(f"{source.label(record)} has no {LABEL!r}; every record needs one to be classified.")
    return str(values[0]).strip()
