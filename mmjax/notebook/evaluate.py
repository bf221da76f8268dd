"""Evaluates a loaded run: its own evaluations, or on other data retrieval and, with labels, classification."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax

from mmjax.core.config import construct
from mmjax.core.errors import UserError
from mmjax.core.types import Batch
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import Source
from mmjax.data.spec import open_spec
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.evaluation.zeroshot import TEMPLATES, read_lines
from mmjax.notebook.classify import LABEL, probe, zero_shot
from mmjax.notebook.run_folder import setting
from mmjax.training.evaluate import bind, evaluate
from mmjax.training.experiment import Evaluation

if TYPE_CHECKING:
    from mmjax.notebook.loaded_model import LoadedModel


def own_evaluations(run: LoadedModel) -> dict[str, Evaluation]:
    """Returns the evaluations of the run's config, built; their data must be there."""
    evaluations = setting(run.config, "evaluations")
    return construct(dict(evaluations)) if evaluations else {}


def evaluate_own(run: LoadedModel) -> dict[str, float]:
    """Returns 'evaluation/metric' -> value of the evaluations in the run's config, as training computes them.

    Raises:
      UserError: the config has none, or their data is not there.
    """
    evaluations = own_evaluations(run)
    if not evaluations:
        raise UserError(f"{run.directory}: the run's config has no evaluations; name data with --data SPEC.")
    return _evaluated(run, evaluations)


def evaluate_on(
    run: LoadedModel,
    data: str,
    train_data: str | None = None,
    class_names: str | None = None,
    templates: str | None = None,
) -> dict[str, float]:
    """Evaluates on other data all that its columns allow.

    Args:
      run: with one modality that is searched and one that holds captions.
      data: what `--data` takes. With captions: retrieval, N captions to M pictures. With a column 'label':
        zero-shot classification (labels that are words), and the probes where train_data is given.
      train_data: as data, with labels; what the linear probe and k-NN learn from.
      class_names: file with what the classes are called, one a line in their order; None: as the labels are.
      templates: file with prompts, one a line, '{}' for the name; None is zeroshot.TEMPLATES.

    Returns:
      'retrieval/...', 'zeroshot/...', 'probe/linear/...' and 'probe/knn/...' -> value; see mmjax.evaluation.

    Raises:
      UserError: data cannot be opened, or has neither captions nor labels.
    """
    evaluator = _retrieval_evaluator(run)
    gallery, queries = run.transform(evaluator.gallery), run.transform(evaluator.queries)
    source = open_spec(data, [gallery.column])
    has = {column: column in source.columns for column in (queries.column, LABEL)}
    if not any(has.values()) or (train_data and not has[LABEL]):
        needed = repr(LABEL) if train_data else f"{queries.column!r} (for retrieval) or {LABEL!r} (for classification)"
        raise UserError(f"--data {data!r}: there is no column {needed}. Its columns are {', '.join(source.columns)}.")
    evaluations: dict[str, Evaluation] = {}
    if has[queries.column]:
        evaluations["retrieval"] = Evaluation(source, evaluator, run.batch_size)
    if has[LABEL]:
        words = None if class_names is None else read_lines(class_names)
        prompts = TEMPLATES if templates is None else read_lines(templates)
        evaluations |= zero_shot(source, evaluator.gallery, evaluator.queries, run.batch_size, words, prompts)
    if train_data:
        train = open_spec(train_data, [gallery.column, LABEL])
        evaluations |= probe(source, train, evaluator.gallery, run.batch_size)
    if not evaluations:
        raise UserError(
            f"--data {data!r}: its labels are numbers or WordNet ids, which no prompt can name; say what the classes "
            "are called with --class-names FILE, or name data to learn them from with --train-data SPEC."
        )
    return _evaluated(run, evaluations)


def _evaluated(run: LoadedModel, evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    """Returns 'evaluation/metric' -> value."""
    pipeline = functools.partial(Pipeline, max_bad_share=run.config.data.max_bad_share)
    bound = bind(evaluations, run.transforms, pipeline, run.mesh)
    with jax.set_mesh(run.mesh):
        return evaluate(bound, lambda batch: run.embed(batch.streams))


def _retrieval_evaluator(run: LoadedModel) -> Any:
    """Returns the run's own retrieval evaluator, without its data, or the usual one."""
    for evaluation in (setting(run.config, "evaluations") or {}).values():
        evaluator = construct(evaluation.evaluator)
        if isinstance(evaluator, RetrievalEvaluator):
            return evaluator
    return RetrievalEvaluator()


def batches_of(run: LoadedModel, source: Source, names: Sequence[str], batch_size: int) -> Iterable[Batch]:
    """Returns every record of source once, in order, in the modalities `names`, preprocessed as the run was."""
    transforms = {name: run.transform(name) for name in names}
    return Pipeline(source, transforms, batch_size, max_bad_share=run.config.data.max_bad_share).eval_batches()
