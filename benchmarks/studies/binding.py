"""Emoji, written and spoken: binding, and what few pairs need."""

from __future__ import annotations

import statistics

from benchmarks.studies.pictures import RowCurve
from benchmarks.studies.rows import Rows, Run
from benchmarks.studies.table import Study

WAYS = {
    f"{first} → {second}": f"{evaluation}/{first}_to_{second}/recall_at_1".replace("speech", "audio")
    for evaluation, names in (
        ("text_image", ("text", "image")),
        ("audio_image", ("speech", "image")),
        ("text_audio", ("text", "speech")),
    )
    for first, second in (names, names[::-1])
}
"""Title -> metric of retrieval, each way."""


def held_out_emoji(rows: Rows) -> str:
    """Returns how many emoji are held out, and how many of them have the same one in another skin tone in training."""
    del rows
    from mmjax.data.datasets.openmoji import OpenMojiSource, without_tone

    sources = (OpenMojiSource(split) for split in ("train", "test"))
    train, test = ([without_tone(source.read(n)["hexcode"][0]) for n in range(len(source))] for source in sources)
    known = sum(each in set(train) for each in test)
    return (
        f"There are {len(train):,} emoji to train on, and {len(test)} held out, of which {known} have the same emoji "
        f"in another skin tone, or in none, among those to train on; no name is in both. Where one of these is to "
        f"be found, chance is {100 / len(test):.2f} %."
    )


def emergence(rows: Rows) -> str:
    """Returns what chance is, and how often it the retrieval has that was never trained on."""
    from mmjax.data.datasets.spoken_openmoji import SpokenOpenMojiSource

    count = len(SpokenOpenMojiSource("test"))
    found = {
        run.cells["trained on"]: [
            statistics.fmean(each[f"text_audio/{way}/recall_at_1"] for each in measured)
            for way in ("text_to_audio", "audio_to_text")
        ]
        for run, measured in rows
        if all("text_audio/text_to_audio/recall_at_1" in each for each in measured)
    }
    times = "; ".join(
        f"trained on {name}: **{count * there:.0f} ×** (text to speech), **{count * back:.0f} ×** (speech to text)"
        for name, (there, back) in found.items()
    )
    arithmetic = rows[0][1][0]
    chance = 100 * arithmetic["arithmetic/chance/recall_at_1"]
    return (
        f"In multiples of chance, text and speech find one another, {times}. Arithmetic has "
        f"{arithmetic['arithmetic/triples']:.0f} triples, for which chance is {chance:.2f} %."
    )


BIND = Study(
    "Binding: text and speech that meet in pictures",
    """Emoji with their names written and, other rows, emoji with their names spoken (synthetic, 15 speakers in two
    accents, another voice in the test). The columns are R@1 over what is held out, and R@1 of embedding arithmetic:
    of a picture and a text (a waving hand + "dark skin tone"), which is to find the held-out picture that is both,
    beside either alone. A picture to begin with may be one that was trained on. The rows of a batch, 256, are
    shared among the pairs that are trained on: where there are more of them, each has fewer rows and negatives a
    step.""",
    "configs/bind.py",
    [
        Run({"trained on": "image + text, image + speech"}),
        Run({"trained on": "those and text + speech"}, config="with_pairs"),
        Run({"trained on": "image + text alone (CLIP)"}, config="single"),
    ],
    {
        **WAYS,
        "image + text → image": "arithmetic/image+text/recall_at_1",
        "image alone": "arithmetic/image/recall_at_1",
        "text alone": "arithmetic/text/recall_at_1",
    },
    seeds=1,
    extras=[held_out_emoji, emergence],
)


KEPT = {"1 %": 0.01, "5 %": 0.05, "20 %": 0.2, "100 %": 1.0}
BOTH_WAYS = "text_image/mean_recall_at_1"
SEMI_PAIRED = Study(
    "Few pairs: what unimodal objectives and binding give back",
    """Emoji and their names, of which the pairing is known for a share; the columns retrieve among what is held out.
    Each batch of 256 has as many rows of pairs that are kept as of two
    other parts. Pairs alone: these count for nothing. Unimodal: all pictures alone and all names alone, whose hidden
    patches and words are predicted (masked modelling as FLAVA's). Bound: all pictures with their names spoken
    (synthetic), and all names written and spoken; picture and name meet in speech too. Fewer pairs are among the more;
    steps and sizes are the same in every row. One standard error of 3 % is about a point.""",
    "configs/semi_paired.py",
    [
        Run({"trained with": name, "pairs kept": percent}, [f"data.source.sources.0.share={share}"], size)
        for name, size in (
            ("pairs alone", "pairs"),
            ("and unimodal objectives", "unimodal"),
            ("and binding through speech", "bound"),
        )
        for percent, share in KEPT.items()
    ],
    {
        "text → image": WAYS["text → image"],
        "image → text": WAYS["image → text"],
        "mean": BOTH_WAYS,
        "mean R@10": "text_image/mean_recall_at_10",
    },
    seeds=1,
    extras=[held_out_emoji],
    curve=RowCurve(
        "pairs kept, %", "pairs kept", BOTH_WAYS, y="held-out R@1, mean of both ways, %", top=None, log=True
    ),
)
