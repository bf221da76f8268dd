"""Classification on data with a column 'label': zero-shot by the labels' words, and probes of the features."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmjax.core.errors import UserError, listed
from mmjax.data.source import Source
from mmjax.data.targets import LabelTarget, classes_of
from mmjax.evaluation.probes import ProbeEvaluator
from mmjax.evaluation.zeroshot import TEMPLATES, ZeroShotEvaluator
from mmjax.training.experiment import Evaluation

LABEL = "label"
"""The column of a record's class: a word, or a number."""

_NO_WORD = re.compile(r"-?\d+|n\d{8}")
"""Numbers, and the WordNet ids that ImageNet's classes have in TFDS: no prompt can name them."""


def zero_shot(
    source: Source,
    modality: str,
    names: str,
    batch_size: int,
    words: Sequence[str] | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> dict[str, Evaluation]:
    """Returns {'zeroshot': evaluation}; nothing where the labels are numbers or WordNet ids and no words are given.

    Args:
      source: with the column 'label'; the classes are those that it declares, or the labels that occur.
      modality: what is classified.
      names: the modality that the classes are named in.
      batch_size: of the evaluation.
      words: what the classes are called, in their order; None: as the labels are.
      templates: prompts with '{}' for the name.

    Raises:
      UserError: no labels, or more or fewer words than classes.
    """
    classes = _classes(source)
    if words is None and all(_NO_WORD.fullmatch(name) for name in classes):
        return {}
    words = [name.replace("_", " ") for name in classes] if words is None else words
    if len(words) != len(classes):
        raise UserError(
            f"{source.name} has {len(classes)} classes ({listed(classes, 3)}), and {len(words)} names were given "
            f"({listed(words, 3)}); expected one name for each class, in their order."
        )
    ks = (1, 5) if len(words) > 5 else (1,)
    evaluator = ZeroShotEvaluator(words, templates, modality=modality, names=names, ks=ks)
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
