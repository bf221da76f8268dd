"""Written and spoken digits, the speech synthetic and in noise: a small bench for fusions, missing modalities, balance.

python train.py --config configs/fusion_study.py --workdir runs/early
python train.py --config configs/fusion_study.py --workdir runs/late --set model.fusion=mmjax.fusion.late.Late
python -m benchmarks.study fusion_study --jobs 2       # the whole table
"""

import fiddle as fdl

from mmjax.balance.ogm_ge import OgmGe
from mmjax.core.errors import one_of
from mmjax.data.audio import AudioTransform
from mmjax.data.datasets.digits import SpokenDigitsSource
from mmjax.data.image import ImageTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.targets import LabelTarget
from mmjax.decoders.head import Head
from mmjax.decoders.probes import Probes
from mmjax.encoders.audio import AudioEncoder
from mmjax.encoders.image import ImageEncoder
from mmjax.evaluation.supervised import ClassificationEvaluator
from mmjax.fusion.early import Early
from mmjax.layers.mel import AstMel
from mmjax.model import MultimodalModel
from mmjax.tasks.supervised import Classification
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE = 8000
SNR_DB = -6.0
"""The noise has four times the power of the speech."""


def get_config(size: str = "full") -> fdl.Config:
    """Returns the experiment; size 'full', or 'smoke' for seconds on a laptop."""
    one_of(size, ("full", "smoke"), "configs/fusion_study.py")
    smoke = size == "smoke"
    width = 16 if smoke else 48
    tower = {"width": width, "depth": 1 if smoke else 2, "num_heads": 2, "mlp_dim": 2 * width, "scan": False}
    mel = fdl.Config(AstMel, RATE, n_fft=256, win_length=200, hop_length=80, num_mels=32)  # 25 ms every 10 ms
    encoders = {
        "image": fdl.Config(ImageEncoder, patch_size=2, pool="mean", **tower),
        "audio": fdl.Config(AudioEncoder, patch_size=(8, 32), mel=mel, **tower),
    }
    transforms = {
        "image": fdl.Config(ImageTransform, size=8, scale=(0.8, 1.0)),
        "audio": fdl.Config(AudioTransform, seconds=0.8, sample_rate=RATE, source_rate=RATE),
    }
    targets = {"label": fdl.Config(LabelTarget, classes=DIGITS)}
    steps = 10 if smoke else 250
    return fdl.Config(
        Experiment,
        model=fdl.Config(
            MultimodalModel,
            encoders=encoders,
            fusion=fdl.Config(Early, **(tower | {"depth": 1})),
            decoders={"label": fdl.Config(Head, len(DIGITS)), "probe": fdl.Config(Probes, len(DIGITS))},
            modality_dropout={"image": 0.0, "audio": 0.0},
        ),
        task=fdl.Config(Classification, probes="probe"),
        data=fdl.Config(
            Pipeline,
            fdl.Config(InMemory, fdl.Config(SpokenDigitsSource, "train", audio_snr_db=SNR_DB)),
            transforms,
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
        balance={"ogm_ge": fdl.Config(OgmGe, alpha=0.0, noise=False)},
        evaluations={
            "held_out": fdl.Config(
                Evaluation,
                fdl.Config(InMemory, fdl.Config(SpokenDigitsSource, "test", audio_snr_db=SNR_DB)),
                fdl.Config(ClassificationEvaluator),
                targets=targets,
            )
        },
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )
