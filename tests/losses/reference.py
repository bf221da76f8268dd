"""The contrastive losses in numpy float64 with gradients derived by hand: what the library's forms are held to.

Masked rows are cut out before anything is computed, so nothing here shares the library's way of masking.
"""

from __future__ import annotations

import numpy as np


def example(size: int, dim: int = 8, seed: int = 0, groups: int | None = None, masked: float = 0.0) -> dict:
    """Returns random unit embeddings a, b, group, mask and per-row loss weights, numpy float32 and int32."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, size, dim))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    group = np.arange(size) if groups is None else rng.integers(0, groups, size)
    return {
        "a": a.astype(np.float32),
        "b": b.astype(np.float32),
        "group": group.astype(np.int32),
        "mask": rng.random(size) >= masked,
        "weight": rng.uniform(0.5, 1.5, size).astype(np.float32),
    }


def _kept(data: dict) -> tuple:
    keep = np.flatnonzero(data["mask"])
    a, b, weight = (np.asarray(data[k][keep], np.float64) for k in ("a", "b", "weight"))
    same = data["group"][keep][:, None] == data["group"][keep][None, :]
    return keep, a, b, weight, same


def _spread(data: dict, keep: np.ndarray, x: np.ndarray) -> np.ndarray:
    out = np.zeros((len(data["mask"]), *x.shape[1:]))
    out[keep] = x
    return out


def softmax(data: dict, scale: float) -> dict:
    """Returns loss [N] and the gradients of sum(weight * loss) for a, b and scale."""
    keep, a, b, weight, same = _kept(data)
    cosine = a @ b.T
    share = same / same.sum(1, keepdims=True)
    rows = np.exp(scale * cosine) / np.exp(scale * cosine).sum(1, keepdims=True)
    columns = np.exp(scale * cosine) / np.exp(scale * cosine).sum(0, keepdims=True)
    loss = -0.5 * ((share * np.log(rows)).sum(1) + (share * np.log(columns)).sum(0))
    d = 0.5 * (weight[:, None] * (rows - share) + weight[None, :] * (columns - share))
    return {
        "loss": _spread(data, keep, loss),
        "a": _spread(data, keep, scale * d @ b),
        "b": _spread(data, keep, scale * d.T @ a),
        "scale": (d * cosine).sum(),
    }


def sigmoid(data: dict, scale: float, bias: float) -> dict:
    """Returns loss [N] and the gradients of sum(weight * loss) for a, b, scale and bias."""
    keep, a, b, weight, same = _kept(data)
    cosine = a @ b.T
    sign = np.where(same, 1.0, -1.0)
    margin = sign * (scale * cosine + bias)
    d = -weight[:, None] * sign / (1 + np.exp(margin))
    return {
        "loss": _spread(data, keep, np.log1p(np.exp(-margin)).sum(1)),
        "a": _spread(data, keep, scale * d @ b),
        "b": _spread(data, keep, scale * d.T @ a),
        "scale": (d * cosine).sum(),
        "bias": d.sum(),
    }


def assert_close(
    actual: dict, expected: dict, rel: float = 1e-5, only: tuple[str, ...] | None = None, floor: float = 0.0
) -> float:
    """Asserts that each entry differs by at most rel of its largest value; returns the largest such ratio.

    `floor` is the least value that rel is taken of, for random data whose gradients may cancel to near zero.
    """
    worst = 0.0
    for name in only or expected:
        want, got = np.asarray(expected[name], np.float64), np.asarray(actual[name], np.float64)
        assert got.shape == want.shape, name
        ratio = np.abs(got - want).max() / max(np.abs(want).max(), floor, 1e-30)
        assert ratio <= rel, f"{name} differs by {ratio:.2e} of its largest value; at most {rel:.0e} is allowed"
        worst = max(worst, ratio)
    return worst
