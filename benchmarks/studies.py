"""What `benchmarks.study` can measure: for each study a config, its variants and the columns of its table."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence

from mmjax.core.config import load_config
from mmjax.data.source import Source

ROOT = pathlib.Path(__file__).parent.parent

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


@dataclasses.dataclass(frozen=True)
class Run:
    """One row: the cells that name it, and what it sets in the config.

    Attributes:
      cells: column -> text.
      sets: as after `--set`.
      config: size of the config; '' is its default.
      teacher: 'FILE:SIZE' of the config that trains its model's teacher first, with the same seed; '' for none.
      file: the config, where it is another than the study's.
    """

    cells: Mapping[str, str]
    sets: Sequence[str] = ()
    config: str = ""
    teacher: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        """The cells that name it as one string."""
        return ", ".join(value for value in self.cells.values() if value)


Rows = Sequence[tuple[Run, list[dict[str, float]]]]
"""What was measured: each row with its metrics, seed by seed."""


def mean_of(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns metric -> mean over the seeds."""
    return {key: statistics.fmean(each[key] for each in found) for key in found[0]}


@dataclasses.dataclass(frozen=True)
class Picture(abc.ABC):
    """Lines in a picture.

    Attributes:
      x, y: labels of the axes.
      top: the highest value that is shown, in %; None: the highest that there is.
      log: positions lie on a logarithmic axis.
    """

    x: str
    y: str = dataclasses.field(default="held-out accuracy, %", kw_only=True)
    top: float | None = dataclasses.field(default=100, kw_only=True)
    log: bool = dataclasses.field(default=False, kw_only=True)

    @abc.abstractmethod
    def lines(self, rows: Rows) -> dict[str, dict[float, float]]:
        """Returns the name of each line -> position -> value, the mean over the seeds."""

    def draw(self, rows: Rows, path: pathlib.Path) -> None:
        """Writes the picture."""
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
        lines = self.lines(rows)
        for name, line in lines.items():
            axes.plot(list(line), [100 * value for value in line.values()], marker="o", label=name)
        axes.set(xlabel=self.x, ylabel=self.y, ylim=(0, self.top))
        if self.log:
            places = sorted({x for line in lines.values() for x in line})
            axes.set_xscale("log")
            axes.set_xticks(places, [f"{x:g}" for x in places])
            axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=120)
        pyplot.close(figure)


@dataclasses.dataclass(frozen=True)
class Curve(Picture):
    """How a metric falls from column to column: a line for each row.

    Attributes:
      points: position -> metric; they are columns of the table too.
    """

    points: Mapping[float, str]

    def lines(self, rows: Rows) -> dict[str, dict[float, float]]:
        """Returns the name of each row -> its points."""
        means = {run.name: mean_of(found) for run, found in rows}
        return {name: {x: found[metric] for x, metric in self.points.items()} for name, found in means.items()}


@dataclasses.dataclass(frozen=True)
class RowCurve(Picture):
    """How one metric changes from row to row: a line for all rows that are equal but for one cell.

    Attributes:
      cell: the column whose text is the position, such as '5 %'.
      metric: what is drawn.
    """

    cell: str
    metric: str

    def lines(self, rows: Rows) -> dict[str, dict[float, float]]:
        """Returns what the other cells say -> position -> the metric."""
        found: dict[str, dict[float, float]] = {}
        for run, seeds in rows:
            name = ", ".join(text for column, text in run.cells.items() if column != self.cell)
            found.setdefault(name, {})[float(run.cells[self.cell].rstrip(" %"))] = mean_of(seeds)[self.metric]
        return found


@dataclasses.dataclass(frozen=True)
class Study:
    """A table.

    Attributes:
      title: of the page.
      about: a paragraph that says what data, what is held out, what is synthetic; line breaks count for nothing.
      config: the file.
      runs: its rows.
      columns: title -> metric.
      seeds: runs of each row.
      curve: the picture.
      smoke_teacher: Run.teacher at the smoke size.
      extras: functions of the rows that return more paragraphs (a baseline measured in the same run, what follows).
    """

    title: str
    about: str
    config: str
    runs: Sequence[Run]
    columns: Mapping[str, str]
    seeds: int = 3
    curve: Picture | None = None
    smoke_teacher: str = ""
    extras: Sequence[Callable[[Rows], str]] = ()


def fusion(name: str) -> str:
    """Returns the setting that swaps the fusion."""
    return f"model.fusion=mmjax.fusion.{FUSIONS[name]}"


def only(name: str) -> str:
    """Returns the column of a subset's accuracy in the evaluation 'held_out'."""
    return f"held_out/{name}/accuracy"


def lost(evaluation: str, shares: Sequence[float]) -> dict[float, str]:
    """Returns percentage -> metric of a RobustnessEvaluator's accuracies."""
    return {100 * share: f"{evaluation}/lost {100 * share:g} %/accuracy" for share in shares}


def titled(points: Mapping[float, str]) -> dict[str, str]:
    """Returns the columns of a curve's points."""
    return {f"{percent:g} % lost": metric for percent, metric in points.items()}


def minirocket(rows: Rows) -> str:
    """Measures the peer on the same windows and splits, and sets it beside the config's own fusion."""
    from benchmarks.minirocket import SENSORS, accuracy, arrays
    from mmjax.data.datasets.har import BasicMotionsSource, WatchSource

    def measured(source: Callable[[str], Source]) -> list[float]:
        train, test = (arrays(source(split), SENSORS) for split in ("train", "test"))
        return [100 * accuracy(train, test, seed) for seed in range(3)]

    watch = {
        WATCH.format(people): measured(functools.partial(WatchSource, held_out=numbers))
        for people, numbers in PEOPLE.items()
    }
    peers = watch | {"BasicMotions": measured(BasicMotionsSource)}
    each = "; ".join(
        f"{data} **{statistics.fmean(found):.1f} ± {statistics.stdev(found):.1f} %**" for data, found in peers.items()
    )
    theirs = statistics.fmean(statistics.fmean(found) for found in watch.values())
    ours = [
        100 * statistics.fmean(each[only("all")] for each in found)
        for run, found in rows
        if run.cells["fusion"] == "early" and run.cells["data"] in watch
    ]
    return (
        "aeon's MiniRocketClassifier with its defaults, on the six channels of the same windows and splits, 3 seeds: "
        f"{each}. Over the nine people held out in turn, MiniRocket has **{theirs:.1f} %** and the config's own early "
        f"fusion **{statistics.fmean(ours):.1f} %**."
    )


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
        findings.append(f"by {title} {fused.split(', ')[1]} {_beside(scores[fused], scores[single])} {single} alone")
    return f"The best fused model beside the best single modality: {'; '.join(findings)}."


def _beside(one: Sequence[float], other: Sequence[float]) -> str:
    """Returns how one's scores over the seeds stand beside another's, the larger the better."""
    ahead = statistics.fmean(one) - statistics.fmean(other)
    spread = max(statistics.stdev(scores) if len(scores) > 1 else 0.0 for scores in (one, other))
    return "beats" if ahead > spread else "does not beat" if ahead <= 0 else "is ahead, within the spread, of"


def taught_against_alone(rows: Rows) -> str:
    """Returns where a student beats the same network without a teacher, and where not."""
    findings = []
    for data, title, metric, students, baseline in TAUGHT:
        scores = {
            run.cells["student"]: [each[metric] for each in found]
            for run, found in rows
            if run.cells["data"] == data and run.cells["student"] in (*students, baseline)
        }
        for student in students:
            how = _beside(scores[student], scores[baseline])
            findings.append(f"{data}, {title}: {student} {how} {baseline}")
    return f"A student beside the same network without what it was taught: {'; '.join(findings)}."


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

PEOPLE = {"8 to 10": (8, 9, 10), "5 to 7": (5, 6, 7), "2 to 4": (2, 3, 4)}
WATCH = "watch, people {} held out"


def held_out(numbers: tuple[int, ...]) -> list[str]:
    """Returns the settings that train on the other people and evaluate on these."""
    sources = ("data.source.source", "evaluations.held_out.source.source")
    return [f"{source}.held_out={numbers}" for source in sources]


HAR = Study(
    "Exercises from a watch",
    """Watch: 7 shoulder exercises of 10 people (seglearn), windows of 4 s; every fusion with the people 8 to 10 held
    out (1,400 windows of 42 recordings), the config's own with two other groups too. The recipe was chosen on these two
    groups, after a first one had been seen on 8 to 10. BasicMotions: 4 activities (aeon) in the published split, 40
    records to train on and 40 held out.""",
    "configs/har.py",
    [Run({"data": WATCH.format("8 to 10"), "fusion": name}, [fusion(name)]) for name in FUSIONS]
    + [
        Run({"data": WATCH.format(people), "fusion": "early"}, held_out(PEOPLE[people]))
        for people in ("5 to 7", "2 to 4")
    ]
    + [
        Run({"data": "BasicMotions", "fusion": name}, [fusion(name)], "basic_motions")
        for name in ("early", "late: mean")
    ],
    {"both sensors": only("all"), "accelerometer only": only("accelerometer"), "gyroscope only": only("gyroscope")},
    extras=[minirocket],
)

LONGER = "duration=1000 steps"

ACTION = Study(
    "Moving emoji",
    """Synthetic clips of 8 frames: an emoji moves over a canvas in one of 8 ways, each with its reversal, so that the
    frames without their order say next to nothing. 367 emoji are held out. Chance is 12.5 %.""",
    "configs/action.py",
    [
        Run({"attention": name}, [f"model.encoders.video.attention={kind}", *more])
        for name, kind, *more in (
            ("mean of frames", "frames"),
            ("joint space-time, tubelets of 2, 1,000 steps", "joint", "model.encoders.video.tubelet_size=2", LONGER),
            ("factorised encoder", "factorised"),
            ("divided space-time", "divided"),
        )
    ],
    {"accuracy": only("all")},
    seeds=1,
)

LEADS_LOST = lost("leads", (0.0, 0.25, 0.5, 0.75, 0.92))

ECG = Study(
    "Rhythms of the heart, with leads missing",
    """Synthetic 12-lead electrocardiograms (the model of McSharry et al. 2003), 10 s at 100 Hz, 7 rhythms; 1,600 of 200
    people to train on, 400 of 50 others held out. The columns lose leads at random, other ones in every record.""",
    "configs/ecg.py",
    [
        Run({"in training": "all leads"}, ["data.transforms.ecg.channel_dropout=0.0"]),
        Run({"in training": "up to 90 % of the leads missing"}),
    ],
    titled(LEADS_LOST),
    curve=Curve("leads lost, %", LEADS_LOST),
)

POINTS_LOST = lost("points", (0.0, 0.25, 0.5, 0.75, 0.9))

LIDAR = Study(
    "Shapes in sparse lidar sweeps, with points lost",
    """Synthetic sweeps of 50 to 400 points of 10 shapes; 2,000 to train on, 500 held out. The columns lose points at
    random.""",
    "configs/lidar.py",
    [
        Run({"in training": "all points"}, ["data.transforms.points.dropout=0.0"]),
        Run({"in training": "up to 80 % of the points dropped"}),
    ],
    titled(POINTS_LOST),
    curve=Curve("points lost, %", POINTS_LOST),
)

STUDIED = (
    "early",
    "mid: bottleneck (MBT)",
    "late: mean",
    "gated",
    "low-rank tensor (LMF)",
    "directed cross-modal (MulT)",
)
DROPOUT = ["model.modality_dropout.image=0.3", "model.modality_dropout.audio=0.3"]
MODULATION = ["balance.ogm_ge.alpha=0.3", "balance.ogm_ge.noise=True"]

FUSION_STUDY = Study(
    "Fusion, missing modalities and balance",
    """1,797 handwritten digits (scikit-learn), each with its name spoken (synthetic) in noise of four times its power;
    450 pictures and the voices of the test are held out. Dropout hides each modality with probability 0.3 in
    training; modulation is OGM-GE. The columns evaluate with both modalities and with one removed.""",
    "configs/fusion_study.py",
    [
        Run(
            {"fusion": name, "modality dropout": "yes" if drop else "no", "modulation": "OGM-GE" if modulate else "no"},
            [fusion(name), *(DROPOUT if drop else ()), *(MODULATION if modulate else ())],
        )
        for name in STUDIED
        for drop in (False, True)
        for modulate in (False, True)
    ],
    {"both": only("all"), "image only": only("image"), "speech only": only("audio")},
)

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

_POORER = tuple(f"{name}, from rich to poor" for name in ("logits", "logits, features, relations"))
_TAUGHT, _HALLUCINATED = ("logits", "logits, features, relations"), ("missing sensor hallucinated",)
TAUGHT = (
    ("watch", "accuracy", only("all"), _TAUGHT + _POORER, "alone"),
    ("sentiment", "accuracy", "label/all/accuracy", _TAUGHT, "alone"),
    ("sentiment", "weighted F1", "label/all/weighted_f1", _TAUGHT, "alone"),
    ("watch", "accelerometer only", only("accelerometer"), _HALLUCINATED, "missing sensor missing"),
    ("watch", "gyroscope only", only("gyroscope"), _HALLUCINATED, "missing sensor missing"),
)
"""(data, title, metric, students, the same network without what they were taught)."""

_ACCELEROMETER = "configs/colearn.py:har_accelerometer"
LOGITS = ["task.tasks.teacher.features=0", "task.tasks.teacher.relations=0"]
NO_TEACHER = ["task.weights.teacher=0", "teachers={}"]
COLEARN = Study(
    "What a teacher with more modalities gives its student",
    """Watch: the teacher sees accelerometer and gyroscope, the student the gyroscope alone; people 8 to 10 held out.
    From rich to poor: the teacher sees the accelerometer alone, the student the gyroscope alone. Emoji sentiment: the
    teacher has picture, name and spoken name (synthetic), the student the name alone. The same network learns without
    its teacher beside. Hallucinated: both sensors in training, one in use, and the other one predicted; beside it the
    same model, whose missing sensor stays missing.""",
    "configs/colearn.py",
    [
        Run({"data": data, "student": name}, sets, size, "" if sets is NO_TEACHER else teacher)
        for data, size, teacher in (
            ("watch", "har", "configs/har.py"),
            ("sentiment", "sentiment", "configs/sentiment.py"),
        )
        for name, sets in (("alone", NO_TEACHER), ("logits", LOGITS), ("logits, features, relations", []))
    ]
    + [
        Run({"data": "watch", "student": f"{name}, from rich to poor"}, sets, "har_transfer", _ACCELEROMETER)
        for name, sets in (("logits", LOGITS), ("logits, features, relations", []))
    ]
    + [
        Run({"data": data, "student": name}, config=size, file=file)
        for data, name, size, file in (
            ("watch", "(the teacher)", "", "configs/har.py"),
            ("watch", "(the teacher, accelerometer alone)", "har_accelerometer", "configs/colearn.py"),
            ("sentiment", "(the teacher)", "", "configs/sentiment.py"),
        )
    ]
    + [
        Run({"data": "watch", "student": name}, sets, "har_hallucinated")
        for name, sets in (("missing sensor hallucinated", []), ("missing sensor missing", ["model.missing=None"]))
    ],
    {
        "watch, all that the student has": only("all"),
        "accelerometer only": only("accelerometer"),
        "gyroscope only": only("gyroscope"),
        "sentiment, accuracy": "label/all/accuracy",
        "sentiment, weighted F1": "label/all/weighted_f1",
    },
    smoke_teacher="configs/har.py:smoke",
    extras=[sentiment_baselines, taught_against_alone],
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

STUDIES: dict[str, Study] = {
    "sentiment": SENTIMENT,
    "har": HAR,
    "action": ACTION,
    "ecg": ECG,
    "lidar": LIDAR,
    "fusion_study": FUSION_STUDY,
    "bind": BIND,
    "colearn": COLEARN,
    "semi_paired": SEMI_PAIRED,
    "flava": FLAVA,
}
