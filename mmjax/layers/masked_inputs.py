"""Masked inputs: patches and words that a model has to predict from the others, drawn from each example's own key."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.types import Stream


def num_hidden(tokens: int, share: float) -> int:
    """Returns how many of so many tokens are hidden: the share, rounded, and one at least.

    Raises:
      UserError: a share that is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"masked inputs: the share {share} of hidden tokens must be above 0 and at most 1.")
    return max(1, round(tokens * share))


def hide_patches(stream: Stream, patches: int, share: float, rng: jax.Array) -> Stream:
    """Hides the same number of patches, drawn uniformly, of every example that has the image.

    The pixels stay: `Stream.hidden` tells the encoder where its mask token goes.

    Args:
      stream: of B images.
      patches: N of an image.
      share: of them that is hidden (BEiT: 0.4).
      rng: [B] keys, one an example.

    Returns:
      stream with hidden [B, N], `num_hidden` True a row; none where the image is missing.

    References:
      Bao et al., BEiT, 2022 (the share); Xie et al., SimMIM, 2022, section 3.2 (single patches at random, which do no
      worse than blocks and are as many in every example).
    """
    chosen = _lowest(_uniform(rng, patches), num_hidden(patches, share))  # [B, N]
    return stream.replace(hidden=chosen & stream.present[:, None])


def hide_words(
    stream: Stream, *, share: float, mask_id: int, vocab_size: int, special: Sequence[int], rng: jax.Array
) -> Stream:
    """Chooses words to be predicted; of these 80 % become the mask token, 10 % any word, and 10 % stay.

    Args:
      stream: ids [B, N] int32 with mask [B, N].
      share: of the words of a text that is chosen, and one word at least, as BERT's own code has it.
      mask_id: id of the mask token.
      vocab_size: ids are below it.
      special: ids that are no words (padding, begin, end); never chosen, nor put in.
      rng: [B] keys, one an example.

    Returns:
      stream with the changed ids, and hidden [B, N], the chosen ones.

    References:
      Devlin et al., BERT, 2019, section 3.1 and appendix A.1.
    """
    words = np.setdiff1d(np.arange(vocab_size), [*special, mask_id]).astype(np.int32)  # [W]
    if not len(words):
        raise UserError(f"masked inputs: of the {vocab_size} ids below vocab_size none is a word.")
    ids, size = stream.values, stream.values.shape[1]
    eligible = stream.mask & ~jnp.isin(ids, np.asarray([*special, mask_id], np.int32))  # [B, N]
    count = jnp.maximum(1, jnp.round(share * eligible.sum(axis=1, keepdims=True)).astype(jnp.int32))  # [B, 1]
    place, fate, word = (_uniform(rng, size, number) for number in range(3))  # [B, N]
    chosen = eligible & _lowest(jnp.where(eligible, place, jnp.inf), count)  # [B, N]
    any_word = jnp.asarray(words)[jnp.minimum((word * len(words)).astype(jnp.int32), len(words) - 1)]  # [B, N]
    changed = jnp.where(fate < 0.8, mask_id, jnp.where(fate < 0.9, any_word, ids))
    return stream.replace(values=jnp.where(chosen, changed, ids).astype(ids.dtype), hidden=chosen)


def _uniform(rng: jax.Array, size: int, number: int = 0) -> jax.Array:
    """Returns [B, size] float32 in [0, 1), the number-th draw of each example."""
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, number), (size,)))(rng)


def _lowest(values: jax.Array, count: int | jax.Array) -> jax.Array:
    """Returns [B, N] bool, True for the `count` (a number, or [B, 1]) lowest of each row of values [B, N]."""
    return jnp.argsort(jnp.argsort(values, axis=1), axis=1) < count
