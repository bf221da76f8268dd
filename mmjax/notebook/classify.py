"""Classification on data with a column 'label': zero-shot by the labels' words, and probes of the features."""

from __future__ import annotations

from mmjax.core.errors import UserError
from mmjax.data.source import Source
from mmjax.data.targets import LabelTarget, classes_of
from mmjax.evaluation.probes import ProbeEvaluator
from mmjax.evaluation.zeroshot import ZeroShotEvaluator
from mmjax.training.experiment import Evaluation

LABEL = "label"
"""The column of a record's class: a word, or a number."""


def zero_shot(source: Source, modality: str, names: str, batch_size: int) -> dict[str, Evaluation]:
    """Returns {'zeroshot': evaluation}; nothing where the labels are numbers, which no prompt can name.

    Args:
      source: with the column 'label'; the classes are those that it declares, or the labels that occur.
      modality: what is classified.
      names: the modality that the classes are named in.
      batch_size: of the evaluation.
    """
    classes = _classes(source)
    if all(name.lstrip("-").isdigit() for name in classes):
        return {}
    words = [name.replace("_", " ") for name in classes]
    evaluator = ZeroShotEvaluator(words, modality=modality, names=names, ks=(1, 5) if len(words) > 5 else (1,))
    return {"zeroshot": Evaluation(source, evaluator, batch_size, targets={LABEL: LabelTarget(LABEL, classes)})}


def probe(source: Source, train: Source, modality: str, batch_size: int) -> dict[str, Evaluation]:
    """Returns {'probe': evaluation} of the features of one modality, learned on train."""
    classes = list(dict.fromkeys([*_classes(train), *_classes(source)]))
    targets = {LABEL: LabelTarget(LABEL, classes)}
    return {"probe": Evaluation(source, ProbeEvaluator(modality), batch_size, train, targets)}


def _classes(source: Source) -> list[str]:
    classes = classes_of(source, LABEL)
    if not classes:
        raise UserError(f"{source.name}: no record has a {LABEL!r}; every record needs one to be classified.")
    return classes
