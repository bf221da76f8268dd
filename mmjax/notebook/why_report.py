"""attribution.png: what a run looks at in a few of its held-out examples."""

from __future__ import annotations

import os
import pathlib

import jax

from mmjax.data.source import Record
from mmjax.evaluation.attribution import AttributionEvaluator
from mmjax.notebook.evaluate import own_evaluations
from mmjax.notebook.explain import explain
from mmjax.notebook.explanation import Explanation
from mmjax.notebook.loaded import load
from mmjax.notebook.loaded_model import LoadedModel
from mmjax.notebook.run_folder import setting
from mmjax.notebook.why_plots import why_picture
from mmjax.training.experiment import Evaluation


def attribution_report(workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Draws, for each AttributionEvaluator of a run, some examples of its data with what speaks for the answer.

    Args:
      workdir: of the run; its newest checkpoint is used.

    Returns:
      The files written in workdir: attribution.png, or one attribution_NAME.png an evaluation where there are several;
      none where the run has no such evaluation. Every process must call this; process 0 writes.

    Raises:
      UserError: workdir is no run, its held-out data is gone, or matplotlib is not installed.
    """
    run = load(workdir)
    given = setting(run.config, "evaluations") or {}
    if not any(issubclass(each.evaluator.__fn_or_cls__, AttributionEvaluator) for each in given.values()):
        return []  # no data is opened
    evaluations = {n: e for n, e in own_evaluations(run).items() if isinstance(e.evaluator, AttributionEvaluator)}
    if jax.process_index() != 0:
        return []
    return [_draw(run, name, each, workdir, len(evaluations)) for name, each in evaluations.items()]


def _draw(
    run: LoadedModel, name: str, evaluation: Evaluation, workdir: str | os.PathLike[str], several: int
) -> pathlib.Path:
    path = pathlib.Path(workdir) / ("attribution.png" if several == 1 else f"attribution_{name}.png")
    source, evaluator = evaluation.source, evaluation.evaluator
    count = min(evaluator.pictures, len(source))
    numbers = [i * len(source) // count for i in range(count)]  # spread, as neighbours may be of one kind
    records = [source.read(number) for number in numbers]
    found = [explain_record(run, record, evaluator) for record in records]
    captions = [_label(record) for record in records]
    title = f"{source.name}: what speaks for the answers, step {run.step:,}"
    why_picture(found, captions, title=title, credit=getattr(source, "credit", ""), path=path)
    return path


def explain_record(run: LoadedModel, record: Record, evaluator: AttributionEvaluator) -> Explanation:
    """Explains what the run answers to a record of its data; columns that the record lacks are missing."""
    given = {name: each for name, each in run.transforms.items() if record.get(each.column) is not None}
    streams = {name: transform.collate([transform.prepare(record, None)]) for name, transform in given.items()}
    return explain(run, streams, evaluator.score, 2 * evaluator.permutations, evaluator.seed)


def _label(record: Record) -> str:
    """Returns the record's own label, if it has one."""
    label = record.get("label")
    label = label[0] if isinstance(label, (list, tuple)) and label else label
    return "" if label is None else f"labelled {label}"
