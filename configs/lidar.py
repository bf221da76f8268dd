"""Shapes in synthetic sparse lidar sweeps, with points lost.

python train.py --config configs/lidar.py --workdir runs/lidar
"""

import fiddle as fdl

from mmjax.core.errors import one_of
from mmjax.data.datasets.lidar import CLASSES, LidarSource
from mmjax.data.pipeline import Pipeline
from mmjax.data.pointcloud import PointCloudTransform
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.targets import LabelTarget
from mmjax.decoders.head import Head
from mmjax.encoders.pointcloud import PointCloudEncoder
from mmjax.evaluation.robustness import RobustnessEvaluator
from mmjax.evaluation.supervised import ClassificationEvaluator
from mmjax.fusion.late import Late
from mmjax.model import MultimodalModel
from mmjax.tasks.supervised import Classification
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

LOST = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Shares of the points that the curve loses."""


def get_config(size: str = "full") -> fdl.Config:
    """Returns the experiment; size 'full', or 'smoke' for seconds on a laptop."""
    one_of(size, ("full", "smoke"), "configs/lidar.py")
    smoke = size == "smoke"
    width = 16 if smoke else 96
    encoder = fdl.Config(
        PointCloudEncoder,
        width=width,
        depth=1 if smoke else 3,
        num_heads=2 if smoke else 4,
        mlp_dim=2 * width,
        num_groups=8 if smoke else 32,
        group_size=8 if smoke else 16,
        group_hidden=(16, 16, 32) if smoke else (32, 32, 64),
        radius=0.5,
        dropout=0.1,
        scan=smoke,
    )
    points = fdl.Config(PointCloudTransform, num_points=64 if smoke else 256, jitter=0.01, dropout=0.8)
    targets = {"label": fdl.Config(LabelTarget, classes=CLASSES)}
    held_out = fdl.Config(InMemory, fdl.Config(LidarSource, "test"))
    steps = 10 if smoke else 600
    return fdl.Config(
        Experiment,
        model=fdl.Config(
            MultimodalModel,
            encoders={"points": encoder},
            fusion=fdl.Config(Late, width=width),
            decoders={"label": fdl.Config(Head, len(CLASSES), dropout=0.1)},
        ),
        task=fdl.Config(Classification, label_smoothing=0.1),
        data=fdl.Config(
            Pipeline,
            fdl.Config(InMemory, fdl.Config(LidarSource, "train")),
            {"points": points},
            16 if smoke else 64,
            targets=targets,
        ),
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=2e-3,
            weight_decay=0.05,
            schedule=fdl.Config(Schedule, "cosine", warmup=f"{steps // 10} steps"),
        ),
        duration=f"{steps} steps",
        evaluations={
            "held_out": fdl.Config(Evaluation, held_out, fdl.Config(ClassificationEvaluator), targets=targets),
            "points": fdl.Config(
                Evaluation, held_out, fdl.Config(RobustnessEvaluator, "points", "positions", LOST), targets=targets
            ),
        },
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )
