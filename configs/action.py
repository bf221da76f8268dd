"""Which way a drawn emoji moves: synthetic clips, pictures held out, told from the motion alone.

python train.py --config configs/action.py --workdir runs/action
python train.py --config configs/action.py --workdir runs/frames --set model.encoders.video.attention=frames
"""

import fiddle as fdl

from mmjax.core.errors import one_of
from mmjax.data.datasets.action import MOTIONS, MovingEmojiSource, MovingEmojiTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.targets import LabelTarget
from mmjax.decoders.head import Head
from mmjax.encoders.video import VideoEncoder
from mmjax.evaluation.supervised import ClassificationEvaluator
from mmjax.fusion.late import Late
from mmjax.model import MultimodalModel
from mmjax.tasks.supervised import Classification
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule


def get_config(size: str = "full") -> fdl.Config:
    """Returns the experiment; size 'full', or 'smoke' for seconds on a laptop."""
    one_of(size, ("full", "smoke"), "configs/action.py")
    smoke = size == "smoke"
    width = 16 if smoke else 64
    encoder = fdl.Config(
        VideoEncoder,
        patch_size=8,
        tubelet_size=1,
        width=width,
        depth=1 if smoke else 2,
        num_heads=2 if smoke else 4,
        mlp_dim=2 * width,
        attention="divided",
        temporal_depth=1 if smoke else 2,
        mean=(1.0, 1.0, 1.0),  # the canvas is white
        std=(0.3, 0.3, 0.3),
        scan=smoke,
    )
    video = fdl.Config(MovingEmojiTransform, num_frames=4 if smoke else 8, size=32)
    targets = {"label": fdl.Config(LabelTarget, classes=MOTIONS)}
    steps = 10 if smoke else 600
    return fdl.Config(
        Experiment,
        model=fdl.Config(
            MultimodalModel,
            encoders={"video": encoder},
            fusion=fdl.Config(Late, width=width),
            decoders={"label": fdl.Config(Head, len(MOTIONS))},
        ),
        task=fdl.Config(Classification),
        data=fdl.Config(
            Pipeline,
            fdl.Config(MovingEmojiSource, "train"),
            {"video": video},
            16 if smoke else 64,
            targets=targets,
        ),
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=2e-3,
            weight_decay=1e-4,
            schedule=fdl.Config(Schedule, "cosine", warmup=f"{steps // 6} steps"),
        ),
        duration=f"{steps} steps",
        evaluations={
            "held_out": fdl.Config(
                Evaluation,
                fdl.Config(MovingEmojiSource, "test", 2 if smoke else 8),
                fdl.Config(ClassificationEvaluator),
                targets=targets,
            )
        },
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )
