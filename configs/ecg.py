"""Rhythms of synthetic 12-lead electrocardiograms, people held out, with leads missing at random.

python train.py --config configs/ecg.py --workdir runs/ecg
python train.py --config configs/ecg.py --workdir runs/ecg_all --set data.transforms.ecg.channel_dropout=0
"""

import fiddle as fdl

from mmjax.core.errors import one_of
from mmjax.data.datasets.ecg import RHYTHMS, SAMPLING_RATE, SECONDS, SyntheticEcgSource
from mmjax.data.datasets.ecg_model import LEADS
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.targets import LabelTarget
from mmjax.data.timeseries import SeriesTransform
from mmjax.decoders.head import Head
from mmjax.encoders.timeseries import SeriesEncoder
from mmjax.evaluation.robustness import RobustnessEvaluator
from mmjax.evaluation.supervised import ClassificationEvaluator
from mmjax.fusion.late import Late
from mmjax.model import MultimodalModel
from mmjax.tasks.supervised import Classification
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

LOST = (0.0, 0.25, 0.5, 0.75, 0.92)
"""Shares of the 12 leads that the curve loses."""


def get_config(size: str = "full") -> fdl.Config:
    """Returns the experiment; size 'full', or 'smoke' for seconds on a laptop."""
    one_of(size, ("full", "smoke"), "configs/ecg.py")
    smoke = size == "smoke"
    width = 16 if smoke else 64
    encoder = fdl.Config(
        SeriesEncoder,
        patch_size=20,
        width=width,
        depth=1 if smoke else 2,
        num_heads=2 if smoke else 4,
        mlp_dim=2 * width,
        channels="joint",
        stem=() if smoke else (32,),
        dropout=0.1,
        scan=smoke,
    )
    ecg = fdl.Config(
        SeriesTransform,
        "ecg",
        length=SAMPLING_RATE * SECONDS,
        channels=LEADS,
        sampling_rate=float(SAMPLING_RATE),
        source_rate=float(SAMPLING_RATE),
        units=("mV",) * len(LEADS),
        scale=(0.8, 1.2),
        channel_dropout=0.9,
    )
    targets = {"label": fdl.Config(LabelTarget, classes=RHYTHMS)}
    held_out = fdl.Config(InMemory, fdl.Config(SyntheticEcgSource, "test"))
    steps = 10 if smoke else 600
    return fdl.Config(
        Experiment,
        model=fdl.Config(
            MultimodalModel,
            encoders={"ecg": encoder},
            fusion=fdl.Config(Late, width=width),
            decoders={"label": fdl.Config(Head, len(RHYTHMS), dropout=0.1)},
        ),
        task=fdl.Config(Classification),
        data=fdl.Config(
            Pipeline,
            fdl.Config(InMemory, fdl.Config(SyntheticEcgSource, "train")),
            {"ecg": ecg},
            16 if smoke else 64,
            targets=targets,
        ),
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=1e-3,
            weight_decay=0.05,
            schedule=fdl.Config(Schedule, "cosine", warmup=f"{steps // 20 + 1} steps"),
        ),
        duration=f"{steps} steps",
        evaluations={
            "held_out": fdl.Config(Evaluation, held_out, fdl.Config(ClassificationEvaluator), targets=targets),
            "leads": fdl.Config(
                Evaluation,
                held_out,
                fdl.Config(RobustnessEvaluator, "ecg", "channels", LOST),
                targets=targets,
            ),
        },
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )
