"""Sentiment of emoji: every fusion and every modality alone."""

from __future__ import annotations

import statistics

from benchmarks.studies.rows import Rows, Run, beside
from benchmarks.studies.settings import fusion
from benchmarks.studies.table import Study


def sentiment_baselines(_: Rows) -> str:
    """Measures what no model, and a linear model of the names' words, reach on the emoji held out."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from mmjax.data.datasets.sentiment import EmojiSentimentSource
    from mmjax.evaluation.supervised import classification_metrics, regression_metrics

    splits = {}
    for split in ("train", "test"):
        source = EmojiSentimentSource(split)
        records = [source.read(index) for index in range(len(source))]
        rows = [(record["description"][0], record["label"][0], record["score"]) for record in records]
        splits[split] = [np.array(column) for column in zip(*rows, strict=True)]
    (texts, classes, scores), (held_out_texts, held_out, wanted) = splits["train"], splits["test"]
    names, counts = np.unique(classes, return_counts=True)
    found = classification_metrics(np.full(len(held_out), names[counts.argmax()]), held_out)
    error = regression_metrics(np.full(len(wanted), scores.mean()), wanted)["mean_absolute_error"]
    linear = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10.0, max_iter=1000))
    words = classification_metrics(linear.fit(texts, classes).predict(held_out_texts), held_out)
    spread = 100 * np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / len(held_out))
    return (
        f"{len(classes)} emoji to train on, {len(held_out)} held out. Always the commonest class: accuracy "
        f"**{100 * found['accuracy']:.1f} %** (one standard error on so few: {spread:.1f}), weighted F1 "
        f"**{100 * found['weighted_f1']:.1f} %**; always the mean score of the training emoji: mean absolute error "
        f"**{error:.3f}**. Logistic regression on the TF-IDF of the names' words (scikit-learn): accuracy "
        f"**{100 * words['accuracy']:.1f} %**, weighted F1 **{100 * words['weighted_f1']:.1f} %**."
    )


def fused_against_single(rows: Rows) -> str:
    """Returns where the best fused model beats the best single modality, and where not."""
    findings = []
    for title, metric, sign in (
        ("accuracy", "label/all/accuracy", 1),
        ("weighted F1", "label/all/weighted_f1", 1),
        ("mean absolute error", "score/all/mean_absolute_error", -1),
        ("correlation", "score/all/correlation", 1),
    ):
        scores = {run.cells["trained on"]: [sign * each[metric] for each in found] for run, found in rows}
        ranked = sorted(scores, key=lambda name: -statistics.fmean(scores[name]))
        fused, single = (next(name for name in ranked if ("+" in name) == several) for several in (True, False))
        findings.append(f"by {title} {fused.split(', ')[1]} {beside(scores[fused], scores[single])} {single} alone")
    return f"The best fused model beside the best single modality: {'; '.join(findings)}."


SENTIMENT = Study(
    "Sentiment of emoji",
    """Emoji that were seen 20 times or more in tweets that people labelled, near-duplicates together in one split. A
    picture, a name, and the name spoken (synthetic) are to tell the class (negative, neutral, positive) and the
    score in [-1, 1].""",
    "configs/sentiment.py",
    [Run({"trained on": name}, config=name) for name in ("image", "text", "audio")]
    + [
        Run({"trained on": f"image + text + audio, {name}"}, [fusion(name), *sizes])
        for name, sizes in (
            ("late: mean", []),
            ("gated", []),
            ("early", ["model.fusion.depth=1", "model.fusion.num_heads=2", "model.fusion.mlp_dim=128"]),
            ("low-rank tensor (LMF)", []),
        )
    ],
    {
        "accuracy": "label/all/accuracy",
        "weighted F1": "label/all/weighted_f1",
        "mean absolute error": "score/all/mean_absolute_error",
        "correlation": "score/all/correlation",
        **{f"weighted F1 with {name} only": f"label/{name}/weighted_f1" for name in ("image", "text", "audio")},
        "without image": "label/audio+text/weighted_f1",
        "without text": "label/audio+image/weighted_f1",
        "without audio": "label/image+text/weighted_f1",
    },
    extras=[sentiment_baselines, fused_against_single],
)
