"""CLIP from scratch on OpenMoji: 3,370 pictures and their names, 10 minutes on 2 cores.

python train.py --config configs/openmoji.py --workdir runs/openmoji
python train.py --config configs/openmoji.py:smoke --workdir runs/smoke
"""

import fiddle as fdl
import flax.linen as nn

from mmjax.core.errors import one_of
from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.data.image import ImageTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.text import TextTransform
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.fusion.coordinated import Coordinated
from mmjax.losses.contrastive import SOFTMAX_LOG_SCALE_INIT, SOFTMAX_LOG_SCALE_MAX
from mmjax.model import MultimodalModel
from mmjax.tasks.contrastive import Contrastive
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

VOCAB_SIZE = 2048
CONTEXT_LENGTH = 16


def get_config(size: str = "full") -> fdl.Config:
    """Returns the experiment; size 'full', or 'smoke' for seconds on a laptop."""
    one_of(size, ("full", "smoke"), "configs/openmoji.py")
    smoke = size == "smoke"
    image_size, patch_size = (32, 8) if smoke else (72, 12)
    width, num_heads = (64, 2) if smoke else (192, 3)
    tower = {"width": width, "num_heads": num_heads, "mlp_dim": 4 * width, "activation": "gelu_tanh"}
    tower |= {"pool": "mean", "scan": smoke}  # a few layers unrolled take a fifth less time a step on a CPU
    model = fdl.Config(
        MultimodalModel,
        encoders={
            "image": fdl.Config(
                ImageEncoder, patch_size=patch_size, depth=2 if smoke else 4, patch_dropout=0.3, **tower
            ),
            "text": fdl.Config(TextEncoder, vocab_size=VOCAB_SIZE, depth=2 if smoke else 1, causal=False, **tower),
        },
        fusion=fdl.Config(
            Coordinated,
            projections={name: fdl.Config(nn.Dense, width, use_bias=False) for name in ("image", "text")},
            init_logit_scale=SOFTMAX_LOG_SCALE_INIT,
        ),
    )
    data = fdl.Config(
        Pipeline,
        source=fdl.Config(OpenMojiSource, "train"),
        transforms={
            "image": fdl.Config(ImageTransform, size=image_size, scale=(0.9, 1.0), ratio=(0.9, 1.1)),
            "text": fdl.Config(TextTransform, context_length=CONTEXT_LENGTH, vocab_size=VOCAB_SIZE),
        },
        batch_size=64 if smoke else 256,
    )
    return fdl.Config(
        Experiment,
        model=model,
        task=fdl.Config(Contrastive, kind="softmax"),
        data=data,
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=1.5e-3,
            weight_decay=0.2,
            schedule=fdl.Config(Schedule, "cosine", warmup="30 steps" if not smoke else "5 steps"),
            bounds={"fusion/logit_scale": (0.0, SOFTMAX_LOG_SCALE_MAX)},
        ),
        duration="20 steps" if smoke else "420 steps",
        evaluations={
            "retrieval": fdl.Config(Evaluation, fdl.Config(OpenMojiSource, "test"), fdl.Config(RetrievalEvaluator))
        },
        evaluate_every="10 steps" if smoke else "105 steps",
        keep=fdl.Config(Keep, every="5 steps" if smoke else "30 steps", metric="retrieval/mean_recall_at_1"),
        log_every=1,
    )
