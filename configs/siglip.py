"""SigLIP as published, for a pod: a pairwise sigmoid over image and text towers of one ViT size.

    python train.py --config configs/siglip.py:B/16 --data 'gs://bucket/shard-{00000..41407}.tar' --workdir runs/siglip
    python train.py --config configs/siglip.py:smoke --workdir runs/siglip_smoke

Sizes and loss: Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023. Optimisation: Tschannen et al.,
SigLIP 2, 2025, section 2.1 (Adam, learning rate 1e-3, decoupled weight decay 1e-4, gradients clipped to norm 1, batch
32,768, cosine with 20,000 warm-up steps, 40 billion examples), with b2 = 0.95 of SigLIP, section 4.6.
"""

import fiddle as fdl
import flax.linen as nn

from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.data.image import ImageTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.text import TextTransform
from mmjax.encoders.image import ImageEncoder, vit_sizes
from mmjax.encoders.text import TextEncoder
from mmjax.fusion.coordinated import Coordinated
from mmjax.losses.contrastive import SIGMOID_BIAS_INIT, SIGMOID_LOG_SCALE_INIT
from mmjax.model import MultimodalModel
from mmjax.tasks.contrastive import Contrastive
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

SMOKE = {"patch_size": 16, "width": 64, "depth": 2, "num_heads": 2, "mlp_dim": 256}


def get_config(variant: str = "B/16") -> fdl.Config:
    """Returns the experiment for a ViT size such as 'B/16', 'L/16' or 'So400m/14', or 'smoke' (tiny, on OpenMoji)."""
    smoke = variant == "smoke"
    sizes = SMOKE if smoke else vit_sizes(variant)
    text_sizes = {name: size for name, size in sizes.items() if name != "patch_size"}
    context_length = 16 if smoke or variant.startswith("So400m") else 64
    image_size, vocab_size = (32, 1024) if smoke else (224, 32_000)
    model = fdl.Config(
        MultimodalModel,
        encoders={
            "image": fdl.Config(
                ImageEncoder,
                **sizes,
                pool="attention",
                activation="gelu_tanh",
                remat="core",
                batch_parts=1 if smoke else 4,  # attention probabilities of 16 examples stay on a TPU's chip
            ),
            "text": fdl.Config(
                TextEncoder,
                vocab_size=vocab_size,
                **text_sizes,
                causal=False,
                mask_padding=False,
                pool="last_position",
                activation="gelu_tanh",
                remat="core",
            ),
        },
        fusion=fdl.Config(
            Coordinated,
            projections={"text": fdl.Config(nn.Dense, sizes["width"])},
            init_logit_scale=SIGMOID_LOG_SCALE_INIT,
            init_logit_bias=SIGMOID_BIAS_INIT,
        ),
    )
    data = fdl.Config(
        Pipeline,
        source=fdl.Config(OpenMojiSource, "train"),
        transforms={
            "image": fdl.Config(
                ImageTransform, size=image_size, scale=(0.9, 1.0), interpolation="bilinear", fit="squash"
            ),
            "text": fdl.Config(TextTransform, context_length=context_length, vocab_size=vocab_size),
        },
        batch_size=16 if smoke else 32_768,
    )
    return fdl.Config(
        Experiment,
        model=model,
        task=fdl.Config(Contrastive, kind="sigmoid"),
        data=data,
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=1e-3,
            b2=0.95,
            epsilon=1e-8,
            weight_decay=1e-4,
            schedule=fdl.Config(Schedule, "cosine", warmup="2 steps" if smoke else "20000 steps"),
        ),
        duration="6 steps" if smoke else "40e9 examples",
        keep=fdl.Config(Keep, every="3 steps" if smoke else "1000 steps"),
        log_every=1 if smoke else 10,
    )
