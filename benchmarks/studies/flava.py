"""FLAVA before and after training."""

from __future__ import annotations

import math

from benchmarks.studies.binding import held_out_emoji
from benchmarks.studies.rows import Rows, Run
from benchmarks.studies.table import ROOT, Study
from mmjax.core.config import load_config

FLAVA_LOSSES = {
    "contrastive": "contrastive",
    "matching": "matching",
    "patches hidden": "mim",
    "words hidden": "mlm",
    "patches hidden, with words": "mmm_image",
    "words hidden, with patches": "mmm_text",
}


def flava_starts(rows: Rows) -> str:
    """Returns what each loss is before training, from what it chooses from, beside what the first row measured."""
    config = load_config(str(ROOT / FLAVA.config))
    choices = {
        "contrastive": ("pairs of the batch", rows[0][1][0]["train/contrastive/pairs"]),
        "matching": ("answers", 2),
        "mim": ("codes", config.model.decoders["mim"].size),
        "mlm": ("words", config.model.decoders["mlm"].size),
    }
    told = ", ".join(f"{size:,.0f} {what} ({math.log(size):.3f})" for what, size in choices.values())
    commonest = 100 * rows[0][1][0]["probe_image/majority/top_1"]
    return (
        f"At the start a loss is the logarithm of what it chooses from: {told}. Of the skin tones, the commonest is "
        f"{commonest:.1f} % of what is held out."
    )


UNTRAINED = ["duration=1 steps", "optimizer.learning_rate=0", "optimizer.schedule.warmup=0 steps"]
FLAVA = Study(
    "FLAVA: before and after training",
    """Emoji with their names, pictures alone and names alone in one run; patches are predicted as codes of an image
    tokenizer that was trained first (`configs/image_codes.py`), and the text encoder is a published one that stays as
    it is (MiniLM, frozen), so that names alone train only what predicts their hidden words. Before is the same network
    after a step at a learning rate of 0. Matching is the mean of how many held-out pairs, and how many mismatches with
    the next record, are told; the hardest mismatches are with the name of the batch whose embedding is nearest the
    picture's. Retrieval is R@1, the mean of both ways. The probes are linear, of the skin tone of the emoji (none,
    five, several), from the vector that the image encoder pools, that of the text encoder, or what the multimodal
    encoder makes of both; a name says the skin tone in words, so only the picture's probe has much to learn. The losses
    are those of the last step of training. Several recipes were judged on these same names before this one was kept:
    its figures are a little kind to it, and one standard error of an accuracy here is about a point.""",
    "configs/flava.py",
    [
        Run({"encoders": name}, sets, teacher="configs/image_codes.py")
        for name, sets in (("before", UNTRAINED), ("after", []))
    ],
    {
        "matching": "matching/accuracy",
        "pairs": "matching/pairs",
        "mismatches": "matching/mismatches",
        "hardest mismatches": "matching/hard_mismatches",
        "retrieval": "retrieval/mean_recall_at_1",
        **{f"probe, {name}": f"probe_{name}/linear/top_1" for name in ("image", "text", "joint")},
        **{f"loss, {title}": f"train/{name}/loss" for title, name in FLAVA_LOSSES.items()},
    },
    seeds=1,
    smoke_teacher="configs/image_codes.py:smoke",
    extras=[held_out_emoji, flava_starts],
)
