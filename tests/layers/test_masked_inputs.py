"""Hidden patches and words: how many, which, what becomes of them, and whose draw it is."""

import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.layers.dropout import example_keys
from mmjax.layers.masked_inputs import hide_patches, hide_words, num_hidden

SIZE, LENGTH, VOCABULARY, SPECIAL, MASK = 512, 60, 103, (0, 1, 2), 102
KEYS = example_keys(jax.random.key(0), SIZE)


def texts() -> Stream:
    """Rows of 0 to 57 words between begin (1) and end (2); row 0 is missing, row 1 has no word."""
    rng = np.random.default_rng(0)
    words = np.concatenate([[0, 0], rng.integers(1, LENGTH - 2, SIZE - 2)])
    ids = rng.integers(3, MASK, (SIZE, LENGTH)).astype(np.int32)
    place = np.arange(LENGTH)
    ids[:, 0] = 1
    ids[place == words[:, None] + 1] = 2
    mask = place < words[:, None] + 2
    mask[0] = False
    return Stream(np.where(mask, ids, 0), mask)


def hidden_words(stream, keys=KEYS, share=0.15):
    options = {"share": share, "mask_id": MASK, "vocab_size": VOCABULARY, "special": SPECIAL}
    return jax.jit(lambda stream, keys: hide_words(stream, rng=keys, **options))(stream, keys)


def test_words_are_15_percent_and_of_these_80_10_10():
    stream = texts()
    found = hidden_words(stream)
    hidden, eligible = np.asarray(found.hidden), stream.mask & ~np.isin(stream.values, SPECIAL)
    assert not (hidden & ~eligible).any()  # never padding, begin or end
    assert hidden[2:].any(axis=1).all() and not hidden[:2].any()
    long = eligible.sum(axis=1) >= 20
    assert abs(hidden[long].sum() / eligible[long].sum() - 0.15) < 0.01
    before, after = stream.values[hidden], np.asarray(found.values)[hidden]
    count = len(before)
    masked, kept = np.mean(after == MASK), np.mean(after == before)
    deviation = np.sqrt(0.8 * 0.2 / count)
    assert count > 2000 and abs(masked - 0.8) < 4 * deviation
    assert abs(kept - 0.1 - 0.1 / 99) < 4 * np.sqrt(0.1 * 0.9 / count)
    others = after[(after != MASK) & (after != before)]
    assert not np.isin(others, SPECIAL).any() and len(np.unique(others)) > 80  # any of 99 words
    np.testing.assert_array_equal(np.asarray(found.values)[~hidden], stream.values[~hidden])


def test_patches_are_40_percent_of_every_image_that_is_there():
    present = np.arange(SIZE) % 8 != 0
    stream = Stream(np.zeros((SIZE, 4, 4, 3), np.uint8), present[:, None])
    hidden = np.asarray(hide_patches(stream, 36, 0.4, KEYS).hidden)
    np.testing.assert_array_equal(hidden.sum(axis=1), np.where(present, 14, 0))
    share = hidden[present].mean(axis=0)  # by place
    assert np.abs(share - 14 / 36).max() < 4.5 * np.sqrt(0.39 * 0.61 / present.sum())
    assert len(np.unique(hidden[present], axis=0)) > 400


def test_the_draw_is_the_example_s_own():
    stream, order = texts(), np.random.default_rng(1).permutation(SIZE)[:100]
    whole, part = hidden_words(stream), hidden_words(jax.tree.map(lambda x: x[order], stream), KEYS[order])
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[order], whole), part)
    image = Stream(np.zeros((SIZE, 4, 4, 3), np.uint8), np.ones((SIZE, 1), bool))
    taken = jax.tree.map(lambda x: x[order], image)
    whole, part = hide_patches(image, 9, 0.4, KEYS).hidden, hide_patches(taken, 9, 0.4, KEYS[order]).hidden
    np.testing.assert_array_equal(whole[order], part)


@pytest.mark.parametrize(("tokens", "share", "count"), [(196, 0.4, 78), (36, 0.4, 14), (3, 0.15, 1), (10, 1.0, 10)])
def test_how_many_are_hidden(tokens, share, count):
    assert num_hidden(tokens, share) == count


def test_wrong_settings_are_sentences():
    with pytest.raises(UserError, match=r"share 1\.5 of hidden tokens must be above 0 and at most 1"):
        num_hidden(10, 1.5)
    with pytest.raises(UserError, match="of the 3 ids below vocab_size none is a word"):
        hide_words(texts(), share=0.15, mask_id=2, vocab_size=3, special=(0, 1), rng=KEYS)
