"""What several studies set and measure."""

from __future__ import annotations

FUSIONS = {
    "early": "early.Early",
    "mid: co-attention": "co_attention.CoAttention",
    "mid: bottleneck (MBT)": "bottleneck.Bottleneck",
    "late: mean": "late.Late",
    "gated": "gated.Gated",
    "sparse mixture": "mixture.SparseMixture",
    "low-rank tensor (LMF)": "low_rank.LowRankTensor",
    "directed cross-modal (MulT)": "cross_modal.CrossModal",
}
"""Name in the tables -> class in mmjax.fusion."""


def fusion(name: str) -> str:
    """Returns the setting that swaps the fusion."""
    return f"model.fusion=mmjax.fusion.{FUSIONS[name]}"


def only(name: str) -> str:
    """Returns the column of a subset's accuracy in the evaluation 'held_out'."""
    return f"held_out/{name}/accuracy"
