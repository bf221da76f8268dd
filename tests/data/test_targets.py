"""Targets travel with their rows; a label that is missing or unknown is a bad record; padding has none."""

import dataclasses

import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import BadRecord
from mmjax.data.targets import NO_LABEL, LabelTarget, ValueTarget, classes_of, label_of
from tests.data.memory import Numbers
from tests.data.test_pipeline import NUMBER

CLASSES = ("zero", "one", "two")


@dataclasses.dataclass
class Labelled(Numbers):
    """Record i has the label CLASSES[i % 3], in one of the forms that sources give, or what `odd` says."""

    columns: tuple[str, ...] = ("number", "label")
    odd: dict = dataclasses.field(default_factory=dict)

    def read(self, index):
        name = CLASSES[index % 3]
        forms = (name, [name], name.encode(), np.array([index % 3]), index % 3, f" {name} ")
        return {"number": index, "label": self.odd.get(index, forms[index % 6])}


def make(source, **options):
    return Pipeline(source, NUMBER, 4, targets={"kind": LabelTarget("label", CLASSES)}, **options)


def test_targets_follow_their_rows():
    pipeline = make(Labelled(10))
    spec = pipeline.element_spec()
    assert (spec.targets["kind"].shape, spec.targets["kind"].dtype) == ((4,), np.int32)
    stream = pipeline.train()
    for batch in [next(stream), *pipeline.eval_batches()]:
        assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(lambda x: (x.shape, x.dtype), spec)
        number = batch.streams["number"].values[:, 0].astype(int)
        np.testing.assert_array_equal(batch.targets["kind"], np.where(batch.mask, number % 3, NO_LABEL))
    stream.close()


def test_a_label_that_is_none_is_a_bad_record():
    source = Labelled(10)
    source.odd = {0: "tow", 1: None, 2: 3, 3: [], 4: ["one", "two"], 5: " ", 6: [["one"], ["two", "zero"]], 7: 10**400}
    pipeline = make(source, max_bad_share=0.9)
    masks = np.concatenate([batch.mask for batch in pipeline.eval_batches()])
    assert np.flatnonzero(masks).tolist() == [8, 9]
    assert pipeline.bad.counts() == {"unknown_label": 8}
    with pytest.raises(BadRecord, match=r"label 'tow' is not one of the 3 classes\. Did you mean 'two'"):
        LabelTarget("label", CLASSES).prepare(source.read(0))


def test_a_part_of_a_mixture_without_labels_has_none():
    batches = list(make(Mixture([Labelled(3), Numbers(3)])).eval_batches(6))
    assert batches[0].mask.all()
    np.testing.assert_array_equal(batches[0].targets["kind"], [0, 1, 2, NO_LABEL, NO_LABEL, NO_LABEL])


def test_numbers_need_no_names():
    assert LabelTarget().prepare({"label": 7}) == 7
    assert LabelTarget(classes=("7", "1")).prepare({"label": 7}) == 0  # a name comes first
    target = LabelTarget()
    for label in ("cat", 2**31, 99999999999, "9" * 5000):
        with pytest.raises(BadRecord, match="is not a number"):
            target.prepare({"label": label})
    assert target.collate([target.prepare({"label": 2**31 - 1})]).tolist() == [2**31 - 1]


def test_a_number_is_no_place_where_names_are_numbers():
    stars = LabelTarget(classes=("1", "2", "3", "4", "5"))
    assert [stars.prepare({"label": label}) for label in ("1", 5, [3])] == [0, 4, 2]
    for label in ("0", 0, 6):
        with pytest.raises(BadRecord, match="is not one of the 5 classes"):
            stars.prepare({"label": label})
    with pytest.raises(BadRecord, match="unknown_label"):
        LabelTarget(classes=("none", "1")).prepare({"label": 0})


def test_a_column_that_is_not_there_is_said():
    with pytest.raises(UserError, match=r"no column 'labels', which the target 'kind' reads\. Did you mean 'label'"):
        Pipeline(Labelled(3), NUMBER, 4, targets={"kind": LabelTarget("labels")})
    for classes in ("abc", ("a", "a")):
        with pytest.raises(UserError, match="a list of names, each once"):
            LabelTarget(classes=classes)


def test_classes_are_declared_or_occur():
    source = Labelled(10)
    source.odd = {index: None for index in range(10)} | {3: "zero", 4: "one", 6: "zero", 7: ["b", "a"]}
    assert classes_of(source, "label") == ["one", "zero"]
    source.classes = {"label": CLASSES}
    assert classes_of(source, "label") == list(CLASSES)
    assert label_of({"label": "né".encode()}, "label") == "né"


@dataclasses.dataclass
class Scored(Numbers):
    """Record i has the score i / 2, in one of the forms that sources give, or what `odd` says."""

    columns: tuple[str, ...] = ("number", "score")
    odd: dict = dataclasses.field(default_factory=dict)

    def read(self, index):
        score = index / 2
        forms = (score, [score], np.float64(score), np.array([score], np.float32), str(score))
        return {"number": index, "score": self.odd.get(index, forms[index % 5])}


def scored(odd=None, **options):
    return Pipeline(Scored(10, odd=odd or {}), NUMBER, 4, max_bad_share=0.9, targets={"y": ValueTarget(**options)})


def test_values_follow_their_rows():
    pipeline = scored()
    spec = pipeline.element_spec()
    assert (spec.targets["y"].shape, spec.targets["y"].dtype) == ((4,), np.float32)
    for batch in pipeline.eval_batches():
        number = batch.streams["number"].values[:, 0]
        assert batch.targets["y"].dtype == np.float32
        np.testing.assert_array_equal(batch.targets["y"], np.where(batch.mask, number / 2, np.nan))


def test_a_value_that_is_none_is_a_bad_record():
    odd = {0: None, 1: float("nan"), 2: float("-inf"), 3: "much", 4: [1.0, 2.0], 5: [], 6: 1e39}
    pipeline = scored(odd)
    masks = np.concatenate([batch.mask for batch in pipeline.eval_batches()])
    assert np.flatnonzero(masks).tolist() == [7, 8, 9]
    assert pipeline.bad.counts() == {"no_value": 2, "bad_value": 5}
    with pytest.raises(BadRecord, match="score 'much' is no number"):
        ValueTarget().prepare({"score": "much"})


def test_a_value_may_be_absent():
    pipeline = scored({0: None, 1: float("nan"), 2: float("inf")}, required=False)
    values = np.concatenate([batch.targets["y"] for batch in pipeline.eval_batches()])
    np.testing.assert_array_equal(values[:5], [np.nan, np.nan, np.nan, 1.5, 2.0])
    assert pipeline.bad.counts() == {"bad_value": 1}


def test_several_values():
    target = ValueTarget("pose", shape=(3,))
    assert target.out_spec() == ((3,), np.float32)
    rows = [target.prepare({"pose": [1, 2, 3]}), None]
    np.testing.assert_array_equal(target.collate(rows), [[1, 2, 3], [np.nan] * 3])
    with pytest.raises(BadRecord, match="pose: 2 numbers, expected 3"):
        target.prepare({"pose": [1, 2]})
    for shape in (3, (2, 2), (0,)):
        with pytest.raises(UserError, match="must be"):
            ValueTarget(shape=shape)
