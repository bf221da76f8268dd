"""What a person does, from a watch: accelerometer and gyroscope as two modalities, any fusion, people held out.

python train.py --config configs/har.py --workdir runs/har                       # 7 exercises, 3 of 10 people held out
python train.py --config configs/har.py:basic_motions --workdir runs/basic_motions
python train.py --config configs/har.py --workdir runs/late --set model.fusion=mmjax.fusion.late.Late
"""

import fiddle as fdl

from mmjax.core.errors import one_of
from mmjax.data.datasets.har import EXERCISES, MOTIONS, BasicMotionsSource, WatchSource
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.targets import LabelTarget
from mmjax.data.timeseries import SeriesTransform
from mmjax.decoders.head import Head
from mmjax.decoders.probes import Probes
from mmjax.encoders.timeseries import SeriesEncoder
from mmjax.evaluation.supervised import ClassificationEvaluator
from mmjax.fusion.early import Early
from mmjax.model import MultimodalModel
from mmjax.tasks.supervised import Classification
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

SENSORS = ("accelerometer", "gyroscope")


def get_config(size: str = "watch") -> fdl.Config:
    """Returns the experiment; size 'watch', 'basic_motions', or 'smoke' for seconds on a laptop."""
    one_of(size, ("watch", "basic_motions", "smoke"), "configs/har.py")
    smoke, source = size == "smoke", WatchSource if size == "watch" else BasicMotionsSource
    classes = EXERCISES if size == "watch" else MOTIONS
    width = 16 if smoke else 64
    tower = {"width": width, "num_heads": 2 if smoke else 4, "mlp_dim": 2 * width, "dropout": 0.1, "scan": smoke}
    patch_size, samples = (10, 200) if size == "watch" else (10, 100)
    rate = 50.0 if size == "watch" else 10.0
    encoder = {"patch_size": patch_size, "depth": 1 if smoke else 2, "channels": "joint", "instance_norm": False}
    series = {"length": samples, "channels": ("x", "y", "z"), "sampling_rate": rate, "source_rate": rate}
    series |= {"scale": (0.8, 1.25), "jitter": 0.05}
    transforms = {
        "accelerometer": fdl.Config(SeriesTransform, "accelerometer", units=("g",) * 3, **series),
        "gyroscope": fdl.Config(SeriesTransform, "gyroscope", units=("rad/s",) * 3, **series),
    }
    model = fdl.Config(
        MultimodalModel,
        encoders={name: fdl.Config(SeriesEncoder, **encoder, **tower) for name in SENSORS},
        fusion=fdl.Config(Early, depth=1, **tower),
        decoders={"label": fdl.Config(Head, len(classes), dropout=0.1), "probe": fdl.Config(Probes, len(classes))},
        modality_dropout={name: 0.1 for name in SENSORS},
    )
    targets = {"label": fdl.Config(LabelTarget, classes=classes)}
    steps = {"watch": 800, "basic_motions": 300, "smoke": 10}[size]
    return fdl.Config(
        Experiment,
        model=model,
        task=fdl.Config(Classification, probes="probe"),
        data=fdl.Config(
            Pipeline,
            fdl.Config(InMemory, fdl.Config(source, "train")),
            transforms,
            64 if size == "watch" else 16,
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
            "held_out": fdl.Config(
                Evaluation,
                fdl.Config(InMemory, fdl.Config(source, "test")),
                fdl.Config(ClassificationEvaluator),
                targets=targets,
            )
        },
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )
