"""What people feel who use an emoji: its picture, its name and its spoken name (synthetic) -> class and score.

python train.py --config configs/sentiment.py --workdir runs/sentiment
python train.py --config configs/sentiment.py:image --workdir runs/sentiment_image     # or text, audio: one alone
"""

import fiddle as fdl

from mmjax.balance.monitor import Monitor
from mmjax.core.errors import one_of
from mmjax.data.audio import AudioTransform
from mmjax.data.datasets.sentiment import EmojiSentimentSource
from mmjax.data.image import ImageTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.targets import LabelTarget, ValueTarget
from mmjax.data.text import TextTransform
from mmjax.decoders.head import Head
from mmjax.decoders.probes import Probes
from mmjax.encoders.audio import AudioEncoder
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.evaluation.attribution import AttributionEvaluator
from mmjax.evaluation.supervised import ClassificationEvaluator, RegressionEvaluator
from mmjax.fusion.late import Late
from mmjax.layers.mel import AstMel
from mmjax.layers.spec_augment import SpecAugment
from mmjax.model import MultimodalModel
from mmjax.tasks.multi import MultiTask, uncertainty_scalars
from mmjax.tasks.supervised import Classification, Regression
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

CLASSES = ("negative", "neutral", "positive")
MODALITIES = ("image", "text", "audio")


def get_config(size: str = "full") -> fdl.Config:
    """Returns the experiment; size 'full', one modality's name, or 'smoke' for seconds on a laptop."""
    one_of(size, ("full", "smoke", *MODALITIES), "configs/sentiment.py")
    smoke, names = size == "smoke", (size,) if size in MODALITIES else MODALITIES
    width = 16 if smoke else 64
    tower = {"width": width, "depth": 1 if smoke else 2, "num_heads": 2, "mlp_dim": 2 * width, "scan": False}
    tower |= {"dropout": 0.2}
    mel = fdl.Config(AstMel, num_mels=64)
    encoders = {
        "image": fdl.Config(ImageEncoder, patch_size=12, pool="mean", patch_dropout=0.3, **tower),
        "text": fdl.Config(TextEncoder, 300, causal=False, pool="mean", **tower),
        "audio": fdl.Config(
            AudioEncoder,
            patch_size=(16, 64),
            mel=mel,
            augment=fdl.Config(SpecAugment, 2, 20, 2, 12, max_share=0.3),
            **tower,
        ),
    }
    transforms = {
        "image": fdl.Config(ImageTransform, size=60, scale=(0.7, 1.0)),
        "text": fdl.Config(TextTransform, "description", tokenizer="bytes", context_length=48),
        "audio": fdl.Config(AudioTransform, seconds=2.0),
    }
    tasks = {
        "label": fdl.Config(Classification, probes="probe", label_smoothing=0.1),
        "score": fdl.Config(Regression, "score", "score", scale=0.3),
    }
    targets = {"label": fdl.Config(LabelTarget, classes=CLASSES), "score": fdl.Config(ValueTarget, "score")}
    held_out = fdl.Config(InMemory, fdl.Config(EmojiSentimentSource, "test"))
    steps = 10 if smoke else 400
    return fdl.Config(
        Experiment,
        model=fdl.Config(
            MultimodalModel,
            encoders={name: encoders[name] for name in names},
            fusion=fdl.Config(Late, width=width),
            decoders={
                "label": fdl.Config(Head, len(CLASSES), dropout=0.2),
                "score": fdl.Config(Head, 1, "values", dropout=0.2),
                "probe": fdl.Config(Probes, len(CLASSES)),
            },
            modality_dropout={name: 0.2 for name in names},
            scalars=uncertainty_scalars(("label", "score")),
        ),
        task=fdl.Config(MultiTask, tasks, uncertainty=True),
        data=fdl.Config(
            Pipeline,
            fdl.Config(InMemory, fdl.Config(EmojiSentimentSource, "train", takes=4)),
            {name: transforms[name] for name in names},
            16 if smoke else 64,
            targets=targets,
        ),
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=5e-4,
            weight_decay=0.1,
            schedule=fdl.Config(Schedule, "cosine", warmup=f"{steps // 10} steps"),
        ),
        duration=f"{steps} steps",
        balance={"monitor": fdl.Config(Monitor, every=20)},
        evaluations={
            "label": fdl.Config(Evaluation, held_out, fdl.Config(ClassificationEvaluator), targets=targets),
            "score": fdl.Config(
                Evaluation, held_out, fdl.Config(RegressionEvaluator, "score", "score"), targets=targets
            ),
            "why": fdl.Config(Evaluation, held_out, fdl.Config(AttributionEvaluator)),
        },
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )
