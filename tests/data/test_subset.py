"""A share of a source: right to one record, nested, and semi-paired data of it that any host reads alike."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.core.errors import UserError
from mmjax.core.types import Batch
from mmjax.data.image import ImageTransform
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.subset import Subset
from mmjax.data.sources.view import View
from mmjax.data.text import TextTransform
from tests.data.memory import Numbers, Pictures, digest


def numbers(size: int, share: float, seed: int = 0) -> list[int]:
    subset = Subset(Numbers(size), share, seed)
    return [subset.read(index)["number"] for index in range(len(subset))]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.floats(0.001, 1.0), st.integers(0, 5))
def test_the_share_is_right_to_one_record_and_none_is_there_twice(size, share, seed):
    found = numbers(size, share, seed)
    assert abs(len(found) - share * size) <= 0.5 or (len(found) == 1 and share * size < 0.5)
    assert len(set(found)) == len(found) and set(found) <= set(range(size))


def test_shares_are_nested_and_depend_on_the_seed_alone():
    few, more, most, all_ = (numbers(1000, share) for share in (0.01, 0.05, 0.2, 1.0))
    assert [len(found) for found in (few, more, most, all_)] == [10, 50, 200, 1000]
    assert few == more[:10] and more == most[:50] and most == all_[:200] and sorted(all_) == list(range(1000))
    assert numbers(1000, 0.05) == more and set(numbers(1000, 0.05, seed=1)) != set(more)
    thirds = np.bincount(np.array(most) // 334, minlength=3)
    assert thirds.min() > 40  # from everywhere, not from the beginning


def test_all_else_is_the_record_s_own():
    source = Numbers(50, bad=frozenset(range(0, 50, 2)))
    source.group = lambda index: index // 5
    subset = Subset(source, 0.5)
    own = [subset.locate(index) for index in range(len(subset))]
    assert [subset.label(i) for i in range(25)] == [f"numbers/{number}" for number in own]
    assert [subset.group(i) for i in range(25)] == [number // 5 for number in own]
    assert subset.name == "numbers (50 %)" and subset.columns == ("number",)


def semi_paired(share: float, size: int = 40) -> Pipeline:
    """Returns a pipeline of few pairs, all pictures alone and all captions alone."""
    source = Pictures(size)
    parts = [Subset(source, share), View(source, {"image": "image"}), View(source, {"caption": "caption"})]
    transforms = {
        "image": ImageTransform(size=8),
        "text": TextTransform(tokenizer="bytes", context_length=32),
    }
    return Pipeline(Mixture(parts, [0.5, 0.25, 0.25]), transforms, 64)


def joined(parts: list[Batch]) -> Batch:
    return jax.tree.map(lambda *rows: np.concatenate(rows), *parts)


def test_only_the_pairs_that_are_kept_have_both_and_the_others_lack_one():
    pipeline, size = semi_paired(0.1), 40
    kept = {Subset(Pictures(size), 0.1).locate(index) for index in range(4)}
    batches = pipeline.train()
    batch = joined([next(batches) for _ in range(64)])  # a block of the mixture
    image, text = (batch.streams[name].present for name in ("image", "text"))
    assert [int(rows.sum()) for rows in (image & text, image & ~text, text & ~image)] == [2048, 1024, 1024]
    ids, mask = batch.streams["text"].values, batch.streams["text"].mask
    tokenizer = pipeline.transforms["text"].tokenizer
    said = {tokenizer.decode(ids[row][mask[row]]) for row in np.flatnonzero(image & text)}
    captions = {f"{words} {number}" for words in ("picture", "bild nummer") for number in kept}
    assert said == captions
    assert not mask[image & ~text].any() and not batch.streams["image"].mask[text & ~image].any()
    assert not np.any(batch.streams["image"].values[text & ~image]) and not np.any(ids[image & ~text])


def test_hosts_and_restarts_read_what_one_would_read():
    pipeline = semi_paired(0.1)
    alone = pipeline.train()
    expected = [digest(next(alone)) for _ in range(3)]
    hosts = [pipeline.train(rows=range(host, 64, 2)) for host in range(2)]
    for want in expected:
        first, second = (next(host) for host in hosts)
        together = jax.tree.map(lambda a, b: np.stack([a, b], axis=1).reshape(64, *a.shape[1:]), first, second)
        assert digest(together) == want
    assert digest(next(semi_paired(0.1).train(start_step=2))) == expected[2]


def test_mistakes_are_sentences():
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(UserError, match=r"share=.* of numbers must be above 0 and at most 1"):
            Subset(Numbers(3), share)
    with pytest.raises(UserError, match="numbers is a Mixture"):
        Subset(Mixture([Numbers(3)]), 0.5)
