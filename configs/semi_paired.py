"""Few pictures that go with their names: what pictures alone and names alone, or speech between both, give back.

    python train.py --config configs/semi_paired.py --workdir runs/pairs               # contrastive, on the pairs alone
    python train.py --config configs/semi_paired.py:unimodal --workdir runs/unimodal   # and masked modelling of others
    python train.py --config configs/semi_paired.py:bound --workdir runs/bound         # and speech (synthetic) between

How many pairs are kept says --set data.source.sources.0.share=0.01. A third of each batch is of these; the others are,
of all emoji, pictures alone and names alone, or picture and speech, name and speech. Size 'smoke' is 'unimodal' in
seconds.

Methods: Singh et al., FLAVA, 2022, section 3.2, without what pairs are needed for; Girdhar et al., ImageBind, 2023,
section 3.2.
"""

import fiddle as fdl
import flax.linen as nn

from mmjax.core.errors import one_of
from mmjax.data.audio import AudioTransform
from mmjax.data.datasets.spoken_openmoji import RATE, SpokenOpenMojiSource
from mmjax.data.image import ImageTransform
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.sources.subset import Subset
from mmjax.data.text import TextTransform
from mmjax.decoders.masked import MaskedHead
from mmjax.encoders.audio import AudioEncoder
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.fusion.coordinated import Coordinated
from mmjax.layers.masked_inputs import num_hidden
from mmjax.layers.mel import AstMel
from mmjax.layers.spec_augment import SpecAugment
from mmjax.losses.contrastive import SOFTMAX_LOG_SCALE_INIT, SOFTMAX_LOG_SCALE_MAX
from mmjax.model import MultimodalModel
from mmjax.tasks.binding import Binding
from mmjax.tasks.contrastive import Contrastive
from mmjax.tasks.flava import Flava
from mmjax.tasks.masking import Masking
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

COLUMN = {"image": "image", "text": "caption", "audio": "audio"}
BESIDE = {
    "pairs": (("image",), ("text",)),
    "unimodal": (("image",), ("text",)),
    "bound": (("image", "audio"), ("text", "audio")),
    "smoke": (("image",), ("text",)),
}
"""Size -> what the other two parts of the mixture show."""
SHARE, PATCH_SIZE, VOCAB_SIZE, CONTEXT_LENGTH = 0.05, 12, 1024, 16


def get_config(size: str = "pairs") -> fdl.Config:
    """Returns the experiment; size 'pairs', 'unimodal', 'bound', or 'smoke' for seconds on a laptop."""
    one_of(size, BESIDE, "configs/semi_paired.py")
    smoke, names = size == "smoke", ["image", "text", *(["audio"] if size == "bound" else [])]
    width, side, steps = (32, 36, 10) if smoke else (64, 72, 250)
    held_out = fdl.Config(InMemory, source("test", ("image", "text")))
    return fdl.Config(
        Experiment,
        model=_model(names, width, 1 if smoke else 2, side, size in ("unimodal", "smoke")),
        task=_task(size),
        data=fdl.Config(Pipeline, _mixture(size), _transforms(names, side), batch_size=24 if smoke else 256),
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=2e-3,
            weight_decay=0.2,
            schedule=fdl.Config(Schedule, "cosine", warmup=f"{steps // 10} steps"),
            bounds={"fusion/logit_scale.*": (0.0, SOFTMAX_LOG_SCALE_MAX)},
        ),
        duration=f"{steps} steps",
        evaluations={"text_image": fdl.Config(Evaluation, held_out, fdl.Config(RetrievalEvaluator))},
        keep=fdl.Config(Keep, every=f"{steps} steps"),
    )


def source(split: str, names: tuple[str, ...]) -> fdl.Config:
    """Returns the records that show these modalities alone; with speech, either recording of each name."""
    takes = 2 if "audio" in names and split == "train" else 1
    return fdl.Config(SpokenOpenMojiSource, split, [COLUMN[name] for name in names], takes=takes)


def _mixture(size: str) -> fdl.Config:
    """Returns the pairs that are kept, and as many rows of each other part."""
    pairs, *others = (fdl.Config(InMemory, source("train", names)) for names in (("image", "text"), *BESIDE[size]))
    return fdl.Config(Mixture, [fdl.Config(Subset, pairs, SHARE), *others], [1.0] * (1 + len(others)))


def _task(size: str) -> fdl.Config:
    """Returns contrastive alignment of the pairs, and what is learned of the other parts."""
    if size == "pairs":
        return fdl.Config(Contrastive)
    if size == "bound":
        return fdl.Config(Binding, ["image+text", "image+audio", "text+audio"])
    of_pairs_too = dict.fromkeys(("matching", "mmm_image", "mmm_text"), 0.0)
    return fdl.Config(Flava, fdl.Config(Masking, PATCH_SIZE, VOCAB_SIZE, VOCAB_SIZE - 1), weights=of_pairs_too)


def _model(names: list[str], width: int, depth: int, side: int, masked: bool) -> fdl.Config:
    """Returns a tower for each modality, with heads for what is hidden where `masked`."""
    tower = {"width": width, "num_heads": 2, "mlp_dim": 4 * width, "pool": "mean", "scan": False}
    mel = fdl.Config(AstMel, RATE, n_fft=256, win_length=200, hop_length=80, num_mels=40)  # 25 ms every 10 ms
    augment = fdl.Config(SpecAugment, 2, 16, 1, 8, max_share=0.15)
    image = {"patch_size": PATCH_SIZE, "depth": depth, "patch_dropout": 0.3, "mask_token": masked}
    encoders = {
        "image": fdl.Config(ImageEncoder, **image, **tower),
        "text": fdl.Config(TextEncoder, vocab_size=VOCAB_SIZE, depth=1, causal=False, **tower),
        "audio": fdl.Config(AudioEncoder, patch_size=(8, 40), depth=depth, mel=mel, augment=augment, **tower),
    }
    patches, words = num_hidden((side // PATCH_SIZE) ** 2, 0.4), num_hidden(CONTEXT_LENGTH, 0.15)
    heads = {
        "mim": fdl.Config(MaskedHead, "image", 3 * PATCH_SIZE**2, patches),
        "mlm": fdl.Config(MaskedHead, "text", VOCAB_SIZE, words),
    }
    fusion = fdl.Config(
        Coordinated,
        projections={name: fdl.Config(nn.Dense, width, use_bias=False) for name in names},
        init_logit_scale=SOFTMAX_LOG_SCALE_INIT,
        pairs=["image+text", "image+audio", "text+audio"] if "audio" in names else [],
    )
    return fdl.Config(
        MultimodalModel, {name: encoders[name] for name in names}, fusion, decoders=heads if masked else {}
    )


def _transforms(names: list[str], side: int) -> dict[str, fdl.Config]:
    transforms = {
        "image": fdl.Config(ImageTransform, size=side, scale=(0.9, 1.0), ratio=(0.9, 1.1)),
        "text": fdl.Config(TextTransform, context_length=CONTEXT_LENGTH, vocab_size=VOCAB_SIZE - 1),
        "audio": fdl.Config(AudioTransform, seconds=3.2, sample_rate=RATE),
    }
    return {name: transforms[name] for name in names}
