"""Probes on scikit-learn's digits (real 8 x 8 scans), with pixels as features."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.evaluator import unit
from mmjax.evaluation.probes import ProbeEvaluator, knn_probe, linear_probe


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:1000], order[1000:]
    return x[train], y[train], x[test], y[test]


def test_linear_probe_reads_digits(digits):
    found = linear_probe(*digits, strengths=(1e-4, 1e-2, 1.0))
    assert found["top_1"] > 0.95
    assert 0.9 < found["validation_top_1"] < 1.0
    assert found["strength"] in (1e-2, 1.0)  # 1e-4 underfits


def test_linear_probe_takes_names_and_any_scale(digits):
    train_x, train_y, test_x, test_y = digits
    names = np.array([f"digit {i}" for i in range(10)])
    scaled = train_x * 1e3 - 7, names[train_y], test_x * 1e3 - 7, names[test_y]
    few = {"strengths": (1e-2,)}
    assert linear_probe(*scaled, **few)["top_1"] == pytest.approx(linear_probe(*digits, **few)["top_1"], abs=0.005)


def test_shuffled_labels_score_chance(digits):
    train_x, train_y, test_x, test_y = digits
    shuffled = np.random.default_rng(1).permutation(train_y)
    assert linear_probe(train_x, shuffled, test_x, test_y, strengths=(1e-3,))["top_1"] < 0.2
    assert knn_probe(train_x, shuffled, test_x, test_y)["top_1"] < 0.2


def test_linear_probe_with_a_class_of_one_example():
    x = np.array([[0.0, 0], [0, 1], [5, 5], [5, 6], [9, 0]])
    found = linear_probe(x, np.array([0, 0, 1, 1, 2]), x, np.array([0, 0, 1, 1, 2]), strengths=(10.0,))
    assert found["top_1"] == 1.0


def test_knn_reads_digits_in_any_chunks(digits):
    found = knn_probe(*digits)
    assert found["top_1"] > 0.95
    assert knn_probe(*digits, chunk=97) == found


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (20, 1.0)])
def test_knn_equals_brute_force(digits, k, temperature):
    train_x, train_y, test_x, test_y = (part[:300] for part in digits)
    score = unit(test_x) @ unit(train_x).T
    rows = np.argsort(-score, axis=1)[:, :k]
    votes = np.zeros((len(test_x), 10))
    for i, near in enumerate(rows):
        for j in near:
            votes[i, train_y[j]] += np.exp(score[i, j] / temperature)
    expected = np.mean(votes.argmax(axis=1) == test_y)
    assert knn_probe(train_x, train_y, test_x, test_y, k=k, temperature=temperature)["top_1"] == expected


def test_knn_with_fewer_examples_than_k():
    x = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert knn_probe(x, np.array(["a", "b"]), x[::-1], np.array(["b", "a"]), k=20)["top_1"] == 1.0


def test_evaluator_runs_both(digits):
    def batches(x, y):
        mask = np.arange(len(x) + 3) < len(x)
        values = np.concatenate([x, np.full((3, 64), np.nan)]).astype(np.float32)
        targets = {"label": np.concatenate([y, [0, 0, 0]])}
        yield Batch({"image": Stream(values, mask[:, None])}, np.arange(len(mask)), mask, targets)

    train_x, train_y, test_x, test_y = (part[:200] for part in digits)
    found = ProbeEvaluator(k=5)(
        lambda batch: {"image": batch.streams["image"].values}, batches(test_x, test_y), batches(train_x, train_y)
    )
    assert set(found) == {
        *("linear/top_1", "linear/validation_top_1", "linear/strength", "knn/top_1", "majority/top_1")
    }
    assert found["knn/top_1"] == knn_probe(train_x, train_y, test_x, test_y, k=5)["top_1"]
    assert found["linear/top_1"] > 0.85


def test_user_errors(digits, monkeypatch):
    train_x, train_y, test_x, test_y = digits
    with pytest.raises(UserError, match=r"labels \(999,\)"):
        knn_probe(train_x, train_y[1:], test_x, test_y)
    with pytest.raises(UserError, match="have 1 class"):
        linear_probe(train_x, np.zeros(len(train_x)), test_x, test_y)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(UserError, match=r"pip install 'mmjax\[demo\]'"):
        linear_probe(train_x, train_y, test_x, test_y)
