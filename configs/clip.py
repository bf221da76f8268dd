"""CLIP as published, for a pod: a contrastive softmax over image and text towers of any ViT size.

    python train.py --config configs/clip.py:B/32 --data 'gs://bucket/shard-{00000..41407}.tar' --workdir runs/clip
    python train.py --config configs/clip.py:smoke --workdir runs/clip_smoke

Hyperparameters: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, tables 18
to 20 (batch 32,768, 32 epochs, AdamW, weight decay 0.2, 2,000 warm-up steps, cosine). Crops are those of open_clip.

CLIP's own tokenizer is not part of mmjax: name its tokenizer.json by --set data.transforms.text.tokenizer=FILE. Without
one, a BPE of the same size is trained on the captions.
"""

import fiddle as fdl
import flax.linen as nn

from mmjax.core.errors import one_of
from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.data.image import ImageTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.text import TextTransform
from mmjax.encoders.image import ImageEncoder, vit_sizes
from mmjax.encoders.text import TextEncoder
from mmjax.fusion.coordinated import Coordinated
from mmjax.losses.contrastive import SOFTMAX_LOG_SCALE_INIT, SOFTMAX_LOG_SCALE_MAX
from mmjax.model import MultimodalModel
from mmjax.tasks.contrastive import Contrastive
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VOCAB_SIZE, CONTEXT_LENGTH = 49408, 77
RECIPES = {  # image size name -> (shared width = text width, peak learning rate)
    "B/32": (512, 5e-4),
    "B/16": (512, 5e-4),
    "L/14": (768, 4e-4),
}


def get_config(variant: str = "B/32") -> fdl.Config:
    """Returns the experiment for a ViT size of RECIPES, or 'smoke' (tiny, on OpenMoji)."""
    smoke = variant == "smoke"
    one_of(variant, [*RECIPES, "smoke"], "configs/clip.py")
    embed_dim, learning_rate = (64, 1e-3) if smoke else RECIPES[variant]
    image_sizes = {"patch_size": 16, "width": 64, "depth": 2, "num_heads": 2, "mlp_dim": 256}
    image_sizes = image_sizes if smoke else vit_sizes(variant)
    text_sizes = {"width": embed_dim, "depth": 2 if smoke else 12, "num_heads": embed_dim // 64}
    image_size, context_length, vocab_size = (32, 16, 1024) if smoke else (224, CONTEXT_LENGTH, VOCAB_SIZE)
    model = fdl.Config(
        MultimodalModel,
        encoders={
            "image": fdl.Config(
                ImageEncoder,
                **image_sizes,
                pool="first",
                pre_norm=True,
                patch_bias=False,
                activation="quick_gelu",
                mean=MEAN,
                std=STD,
                remat="core",
            ),
            "text": fdl.Config(
                TextEncoder,
                vocab_size=vocab_size,
                **text_sizes,
                mlp_dim=4 * embed_dim,
                activation="quick_gelu",
                remat="core",
            ),
        },
        fusion=fdl.Config(
            Coordinated,
            projections={name: fdl.Config(nn.Dense, embed_dim, use_bias=False) for name in ("image", "text")},
            init_logit_scale=SOFTMAX_LOG_SCALE_INIT,
        ),
    )
    data = fdl.Config(
        Pipeline,
        source=fdl.Config(OpenMojiSource, "train"),
        transforms={
            "image": fdl.Config(ImageTransform, size=image_size, scale=(0.9, 1.0), mean=MEAN, std=STD),
            "text": fdl.Config(TextTransform, context_length=context_length, vocab_size=vocab_size),
        },
        batch_size=16 if smoke else 32_768,
    )
    return fdl.Config(
        Experiment,
        model=model,
        task=fdl.Config(Contrastive, kind="softmax"),
        data=data,
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=learning_rate,
            b2=0.98,
            epsilon=1e-6,
            weight_decay=0.2,
            decay=(r".*/(kernel|embedding|table)",),
            clip_norm=None,
            schedule=fdl.Config(Schedule, "cosine", warmup="2 steps" if smoke else "2000 steps"),
            bounds={"fusion/logit_scale": (0.0, SOFTMAX_LOG_SCALE_MAX)},
        ),
        duration="6 steps" if smoke else "32 epochs",
        keep=fdl.Config(Keep, every="3 steps" if smoke else "1000 steps"),
        log_every=1 if smoke else 10,
    )
