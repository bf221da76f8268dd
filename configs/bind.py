"""Any-to-any binding: emoji with their names written, emoji with their names spoken (synthetic), never both.

    python train.py --config configs/bind.py --workdir runs/bind                  # text and speech meet in the pictures
    python train.py --config configs/bind.py:with_pairs --workdir runs/with_pairs # and are shown together too
    python train.py --config configs/bind.py:single --workdir runs/single         # one pair: CLIP
    python train.py --config configs/bind.py:text_anchor --workdir runs/by_text   # pictures and speech meet in the text

An anchor that was trained before and stays as it is (text learns on, speech from scratch):

    python train.py --config configs/bind.py --workdir runs/frozen --init-from runs/single \
        --set 'init_from.allow_missing=[".*audio.*"]' \
        --set 'optimizer.frozen=["encoders_image/.*", "fusion/projections_image/.*"]'

Method: Girdhar et al., ImageBind: One Embedding Space To Bind Them All, 2023, section 3.2.

'base' has published towers, for a pod: CLIP's B/16 with its recipe (configs/clip.py) and, beside it, AST of that size
on 2 s of sound at 16 kHz, 128 mels, patches of 16 every 10 (ImageBind, section 3.3). All three learn, at a batch of
16,384.
"""

import pathlib

import fiddle as fdl
import flax.linen as nn

from mmjax.core.config import load_config
from mmjax.core.errors import one_of
from mmjax.data.audio import AudioTransform
from mmjax.data.datasets.spoken_openmoji import RATE, SpokenOpenMojiSource
from mmjax.data.image import ImageTransform
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.text import TextTransform
from mmjax.data.text_target import TextTarget
from mmjax.encoders.audio import AudioEncoder
from mmjax.encoders.image import ImageEncoder, vit_sizes
from mmjax.encoders.text import TextEncoder
from mmjax.evaluation.arithmetic import ArithmeticEvaluator
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.fusion.coordinated import Coordinated
from mmjax.layers.mel import AstMel
from mmjax.layers.spec_augment import SpecAugment
from mmjax.losses.contrastive import SOFTMAX_LOG_SCALE_INIT, SOFTMAX_LOG_SCALE_MAX
from mmjax.model import MultimodalModel
from mmjax.tasks.binding import Binding, anchored
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

COLUMN = {"image": "image", "text": "caption", "audio": "audio"}
PAIRS = {
    "full": anchored("image", ("text", "audio")),
    "with_pairs": [*anchored("image", ("text", "audio")), "text+audio"],
    "single": anchored("image", ("text",)),
    "text_anchor": anchored("text", ("image", "audio")),
    "base": anchored("image", ("text", "audio")),
    "smoke": anchored("image", ("text", "audio")),
}
VOCAB_SIZE, CONTEXT_LENGTH = 2048, 16


def get_config(size: str = "full") -> fdl.Config:
    """Returns the experiment; sizes as above, and 'smoke' (seconds)."""
    one_of(size, PAIRS, "configs/bind.py")
    if size == "base":
        return published(PAIRS[size])
    pairs, smoke = PAIRS[size], size == "smoke"
    names = [name for name in COLUMN if any(name in pair.split("+") for pair in pairs)]
    width, steps = (32, 10) if smoke else (128, 400)
    tower = {"width": width, "num_heads": 2, "mlp_dim": 4 * width, "pool": "mean", "scan": False}
    mel = fdl.Config(AstMel, RATE, n_fft=256, win_length=200, hop_length=80, num_mels=40)  # 25 ms every 10 ms
    encoders = {
        "image": fdl.Config(ImageEncoder, patch_size=12, depth=1 if smoke else 4, patch_dropout=0.3, **tower),
        "text": fdl.Config(TextEncoder, vocab_size=VOCAB_SIZE, depth=1, causal=False, **tower),
        "audio": fdl.Config(
            AudioEncoder,
            patch_size=(8, 40),
            depth=1 if smoke else 4,
            mel=mel,
            augment=fdl.Config(SpecAugment, 2, 16, 1, 8, max_share=0.15),
            **tower,
        ),
    }
    transforms = {
        "image": fdl.Config(ImageTransform, size=36 if smoke else 72, scale=(0.9, 1.0), ratio=(0.9, 1.1)),
        "text": fdl.Config(TextTransform, context_length=CONTEXT_LENGTH, vocab_size=VOCAB_SIZE),
        "audio": fdl.Config(AudioTransform, seconds=3.2, sample_rate=RATE),
    }
    columns = [COLUMN[name] for name in names]
    held_out = fdl.Config(InMemory, fdl.Config(SpokenOpenMojiSource, "test", columns))
    pictures = fdl.Config(SpokenOpenMojiSource, "train", ["image", "caption"])
    evaluations = {
        f"{queries}_{gallery}": fdl.Config(Evaluation, held_out, fdl.Config(RetrievalEvaluator, queries, gallery))
        for queries, gallery in (("text", "image"), ("audio", "image"), ("text", "audio"))
        if {queries, gallery} <= set(names)
    }
    evaluations["arithmetic"] = fdl.Config(
        Evaluation,
        held_out,
        fdl.Config(ArithmeticEvaluator, train_bases=True),
        train_source=pictures,
        targets={"caption": fdl.Config(TextTarget)},
    )
    return fdl.Config(
        Experiment,
        model=fdl.Config(
            MultimodalModel,
            encoders={name: encoders[name] for name in names},
            fusion=fdl.Config(
                Coordinated,
                projections={name: fdl.Config(nn.Dense, width, use_bias=False) for name in names},
                init_logit_scale=SOFTMAX_LOG_SCALE_INIT,
                pairs=pairs,
            ),
        ),
        task=fdl.Config(Binding, pairs),
        data=fdl.Config(
            Pipeline,
            fdl.Config(Mixture, [fdl.Config(InMemory, part(pair)) for pair in pairs], [1.0] * len(pairs)),
            {name: transforms[name] for name in names},
            batch_size=16 if smoke else 256,
        ),
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=1.5e-3,
            weight_decay=0.2,
            schedule=fdl.Config(Schedule, "cosine", warmup=f"{steps // 14} steps"),
            bounds={"fusion/logit_scale/.*": (0.0, SOFTMAX_LOG_SCALE_MAX)},
        ),
        duration=f"{steps} steps",
        evaluations=evaluations,
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )


def part(pair: str) -> fdl.Config:
    """Returns the records that show one pair: the other columns are not there, so that they are missing."""
    columns = [COLUMN[name] for name in pair.split("+")]
    return fdl.Config(SpokenOpenMojiSource, "train", columns, takes=2 if "audio" in columns else 1)


def published(pairs: list[str]) -> fdl.Config:
    """Returns CLIP's B/16 with sound bound to its pictures."""
    config = load_config(f"{pathlib.Path(__file__).with_name('clip.py')}:B/16")
    sizes = vit_sizes("B/16") | {"patch_size": (16, 16), "stride": (10, 10), "pool": "first", "posemb": "learned"}
    config.model.encoders["audio"] = fdl.Config(AudioEncoder, **sizes, remat="core")
    fusion = config.model.fusion
    fusion.projections["audio"] = fdl.Config(nn.Dense, fusion.projections["image"].features, use_bias=False)
    fusion.pairs = pairs
    config.task = fdl.Config(Binding, pairs)
    config.data.source = fdl.Config(Mixture, [part(pair) for pair in pairs], [1.0] * len(pairs))
    config.data.transforms["audio"] = fdl.Config(AudioTransform, seconds=2.0)
    config.data.batch_size = 16_384
    config.optimizer.bounds = {"fusion/logit_scale/.*": (0.0, SOFTMAX_LOG_SCALE_MAX)}
    return config
