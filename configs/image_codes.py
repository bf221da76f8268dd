"""An image tokenizer: a vector-quantised autoencoder over patches, whose codes FLAVA predicts. Minutes on 2 cores.

    python train.py --config configs/image_codes.py --workdir runs/image_codes
    python train.py --config configs/image_codes.py:smoke --workdir runs/image_codes_smoke
    python train.py --config configs/image_codes.py:base --data 'gs://bucket/{00000..41407}.tar' --workdir runs/codes

The grid of codes is that of the patches of configs/flava.py at the same size. Sizes of 'base': 8,192 codes of 32
numbers, as ViT-VQGAN (Yu et al. 2022) and BEiT v2 (Peng et al. 2022) have, 14 x 14 an image; towers of ViT-S.
"""

import fiddle as fdl

from mmjax.core.errors import one_of
from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.data.image import ImageTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.decoders.codes import Codes
from mmjax.decoders.patches import PatchDecoder
from mmjax.encoders.image import ImageEncoder
from mmjax.evaluation.reconstruction import ReconstructionEvaluator
from mmjax.fusion.quantised import Quantised
from mmjax.model import MultimodalModel
from mmjax.tasks.reconstruction import Reconstruction
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

SIZES = {  # name -> (image, patch, width, encoder and decoder depth, heads, K, d, batch, learning rate, duration)
    "full": (72, 12, 128, 2, 4, 512, 16, 64, 2e-3, "1500 steps"),
    "smoke": (32, 8, 32, 1, 2, 64, 8, 16, 2e-3, "20 steps"),
    "base": (224, 16, 384, 12, 6, 8192, 32, 1024, 1e-3, "100000 steps"),
}


def get_config(size: str = "full") -> fdl.Config:
    """Returns the experiment; size 'full' (OpenMoji), 'smoke' (seconds), or 'base' (for a pod)."""
    one_of(size, SIZES, "configs/image_codes.py")
    image, patch, width, depth, heads, codes, code_width, batch, learning_rate, duration = SIZES[size]
    tower = {"depth": depth, "num_heads": heads, "mlp_dim": 4 * width}
    tower |= {"scan": size == "base", "remat": "core" if size == "base" else "none"}
    grid = {"patch_size": patch, "codebook_size": codes}
    return fdl.Config(
        Experiment,
        model=fdl.Config(
            MultimodalModel,
            encoders={"image": fdl.Config(ImageEncoder, patch_size=patch, width=width, pool="none", **tower)},
            # with softer probabilities the entropy term is content with a few codes
            fusion=fdl.Config(Quantised, codes, width, code_width, temperature=0.02),
            decoders={"pixels": fdl.Config(PatchDecoder, patch, **tower), "codes": fdl.Config(Codes)},
        ),
        task=fdl.Config(Reconstruction, **grid, entropy=0.1),
        data=fdl.Config(
            Pipeline,
            source=fdl.Config(InMemory, fdl.Config(OpenMojiSource, "train")),
            transforms={"image": fdl.Config(ImageTransform, size=image, scale=(0.7, 1.0), ratio=(0.9, 1.1))},
            batch_size=batch,
        ),
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=learning_rate,
            weight_decay=0.01,
            decay=(r".*/kernel",),
            schedule=fdl.Config(Schedule, "cosine", warmup="5000 steps" if size == "base" else "2 steps"),
        ),
        duration=duration,
        evaluations={
            "held_out": fdl.Config(
                Evaluation,
                fdl.Config(OpenMojiSource, "test"),
                fdl.Config(ReconstructionEvaluator, **grid),
                batch_size=batch,
            )
        },
        evaluate_every="10000 steps" if size == "base" else None,
        keep=fdl.Config(Keep, every="500 steps" if size == "full" else "10 steps" if size == "smoke" else "1000 steps"),
        log_every=1 if size == "smoke" else 10,
    )
