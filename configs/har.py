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
from mmjax.evaluation.attribution import AttributionEvaluator
from mmjax.evaluation.supervised import ClassificationEvaluator
from mmjax.fusion.early import Early
from mmjax.model import MultimodalModel
from mmjax.tasks.supervised import Classification
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

SENSORS = ("accelerometer", "gyroscope")

WATCH = {
    "accelerometer": ((-0.02, 0.42, -0.12), (0.89, 0.50, 0.57)),
    "gyroscope": ((0.01, -0.01, 0.01), (1.03, 2.61, 1.07)),
}
BASIC_MOTIONS = {
    "accelerometer": ((2.55, -1.30, -1.03), (7.07, 6.79, 3.55)),
    "gyroscope": ((0.02, -0.02, -0.06), (2.11, 1.82, 3.52)),
}
"""Mean and standard deviation of x, y and z over the split `train`."""


def get_config(size: str = "watch") -> fdl.Config:
    """Returns the experiment; size 'watch', 'basic_motions', or 'smoke' for seconds on a laptop."""
    one_of(size, ("watch", "basic_motions", "smoke"), "configs/har.py")
    smoke, watch = size == "smoke", size == "watch"
    source, classes = (WatchSource, EXERCISES) if watch else (BasicMotionsSource, MOTIONS)
    samples, rate = (200, 50.0) if watch else (100, 10.0)
    width = 16 if smoke else 64
    tower = {"width": width, "num_heads": 2 if smoke else 4, "mlp_dim": 2 * width, "dropout": 0.1, "scan": smoke}
    encoder = {"patch_size": 10, "depth": 1 if smoke else 2, "channels": "joint"}
    encoder |= {"stem": (8,) if smoke else (64, 64, 64), "stem_dilation": 3}  # 79 samples, 1.6 s of the watch
    series = {"length": samples, "channels": ("x", "y", "z"), "sampling_rate": rate, "source_rate": rate}
    series |= {"speed": (0.8, 1.25), "rotation": 5.0, "scale": (0.8, 1.2), "jitter": 0.05}
    series |= {"channel_dropout": 0.4, "draws_with": "watch"}
    scales = {name: {"mean": mean, "std": std} for name, (mean, std) in (WATCH if watch else BASIC_MOTIONS).items()}
    units = {"accelerometer": ("g",) * 3, "gyroscope": ("rad/s",) * 3} if watch else dict.fromkeys(SENSORS, ())
    transforms = {name: fdl.Config(SeriesTransform, name, units=units[name], **series) for name in SENSORS}
    model = fdl.Config(
        MultimodalModel,
        encoders={n: fdl.Config(SeriesEncoder, **encoder, **tower, **scales[n]) for n in SENSORS},
        fusion=fdl.Config(Early, depth=1, **tower),
        decoders={"label": fdl.Config(Head, len(classes), dropout=0.1), "probe": fdl.Config(Probes, len(classes))},
        modality_dropout={name: 0.1 for name in SENSORS},
    )
    targets = {"label": fdl.Config(LabelTarget, classes=classes)}
    steps = {"watch": 300, "basic_motions": 150, "smoke": 10}[size]
    return fdl.Config(
        Experiment,
        model=model,
        task=fdl.Config(Classification, probes="probe", label_smoothing=0.1),
        data=fdl.Config(
            Pipeline,
            fdl.Config(InMemory, fdl.Config(source, "train")),
            transforms,
            64 if watch else 16,
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
            ),
            "why": fdl.Config(Evaluation, fdl.Config(source, "test"), fdl.Config(AttributionEvaluator)),
        },
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )
