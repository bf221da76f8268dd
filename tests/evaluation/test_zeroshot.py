"""Zero-shot classification: prompt ensembles, metrics against brute force, sentences for mistakes."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Batch, Stream
from mmjax.evaluation.evaluator import unit
from mmjax.evaluation.zeroshot import TEMPLATES, ZeroShotEvaluator, class_embeddings, read_lines, zeroshot_metrics


def _encode(prompts):
    """A fixed pseudo-random vector of any length for every string."""
    return np.stack([np.random.default_rng(list(prompt.encode())).normal(size=5) * len(prompt) for prompt in prompts])


def test_a_class_is_the_mean_of_its_normalised_prompts():
    templates = ("a {}.", "the {} of a {}")
    found = class_embeddings(_encode, ["cat", "dog", "owl"], templates, batch_size=4)
    for name, row in zip(["cat", "dog", "owl"], found, strict=True):
        a, b = _encode([f"a {name}.", f"the {name} of a {name}"])
        mean = a / np.linalg.norm(a) + b / np.linalg.norm(b)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)
    assert found.dtype == np.float32


def test_the_encoder_gets_batches_of_bounded_size():
    sizes = []

    def encode(prompts):
        sizes.append(len(prompts))
        return _encode(prompts)

    class_embeddings(encode, [f"class {i}" for i in range(5)], TEMPLATES, batch_size=16)
    assert sum(sizes) == 5 * len(TEMPLATES) and max(sizes) == 16


def test_metrics_equal_brute_force_on_unbalanced_classes():
    rng = np.random.default_rng(0)
    classes = unit(rng.normal(size=(9, 6)))
    labels = rng.choice(8, size=200, p=np.array([65, 5, 5, 5, 5, 5, 5, 5]) / 100)  # the last class never occurs
    examples = unit(classes[labels] + 0.8 * rng.normal(size=(200, 6)))
    order = np.argsort(-(examples @ classes.T), axis=1)
    hit = order[:, 0] == labels
    expected = {
        "top_1": hit.mean(),
        "top_5": (order[:, :5] == labels[:, None]).any(axis=1).mean(),
        "mean_per_class": np.mean([hit[labels == c].mean() for c in range(8)]),
    }
    found = zeroshot_metrics(examples, classes, labels, chunk=64)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found["top_1"] != pytest.approx(found["mean_per_class"], abs=1e-3)


def test_one_class_for_all_scores_chance():
    same = np.tile(unit(np.ones((1, 4))), (10, 1))
    found = zeroshot_metrics(same, same, np.arange(10))
    assert found == pytest.approx({"top_1": 0.1, "top_5": 0.5, "mean_per_class": 0.1}, abs=1e-12)


def test_evaluator_reads_files_and_targets(tmp_path):
    (tmp_path / "names.txt").write_text("cat\n\n dog \nowl\n")
    (tmp_path / "templates.txt").write_text("a {}.\nthe {}\n")
    classes = class_embeddings(_encode, ["cat", "dog", "owl"], ["a {}.", "the {}"])
    labels = np.array([2, 0, 1, 0])
    mask = np.array([True, True, True, False])
    batch = Batch({"image": Stream(classes[labels], np.ones((4, 1), bool))}, np.arange(4), mask, {"label": labels})
    evaluate = ZeroShotEvaluator(str(tmp_path / "names.txt"), str(tmp_path / "templates.txt"), ks=(1, 2))
    found = evaluate(lambda batch: {"image": batch.streams["image"].values}, [batch], encode_text=_encode)
    assert found == {"top_1": 1.0, "top_2": 1.0, "mean_per_class": 1.0}


def test_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"'a photo' has no '\{\}'"):
        class_embeddings(_encode, ["cat"], ["a photo"])
    with pytest.raises(UserError, match="needs class names"):
        class_embeddings(_encode, [], ["{}"])
    with pytest.raises(UserError, match="labels run from 0 to 3, but there are 3 class names"):
        zeroshot_metrics(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), np.array([0, 1, 3]))
    with pytest.raises(UserError, match="there is no file"):
        read_lines(tmp_path / "absent.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="is empty"):
        read_lines(tmp_path / "empty.txt")
