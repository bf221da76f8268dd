"""A tiny experiment on a source in memory, for tests of the training system."""

import dataclasses

import cv2
import fiddle as fdl
import flax.linen as nn
import jax
import numpy as np

from mmjax.core.types import Batch, Stream
from mmjax.data.image import ImageTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.text import TextTransform
from mmjax.encoders.image import ImageEncoder
from mmjax.encoders.text import TextEncoder
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.fusion.coordinated import Coordinated
from mmjax.model import MultimodalModel
from mmjax.tasks.contrastive import Contrastive
from mmjax.training.checkpoint import Keep
from mmjax.training.experiment import Evaluation, Experiment
from mmjax.training.optimizer import Optimizer
from mmjax.training.schedule import Schedule

COLOURS = ("red", "green", "blue", "white")


@dataclasses.dataclass(frozen=True)
class ColourSource:
    """Plain squares and their colours' names; record i is a function of i."""

    length: int = 64
    name: str = "colours"
    columns: tuple[str, ...] = ("image", "caption")

    def __len__(self) -> int:
        return self.length

    def read(self, index: int) -> dict:
        """Returns a PNG of one colour with a little noise, and two captions."""
        colour = index % len(COLOURS)
        noise = np.random.default_rng(index).integers(0, 40, (16, 16, 3))
        plain = np.array([(0, 0, 215), (0, 215, 0), (215, 0, 0), (215, 215, 215)][colour])
        pixels = np.clip(plain + noise, 0, 255).astype(np.uint8)
        captions = [f"a {COLOURS[colour]} square {index}", f"{COLOURS[colour]} {index}"]
        return {"image": cv2.imencode(".png", pixels)[1].tobytes(), "caption": captions}

    def label(self, index: int) -> str:
        """Returns the record's number."""
        return f"colour {index}"


def tiny_config(**settings) -> fdl.Config:
    """Returns an Experiment of seconds; settings replace its fields."""
    tower = {"width": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64, "dropout": 0.1}
    model = fdl.Config(
        MultimodalModel,
        encoders={
            "image": fdl.Config(ImageEncoder, patch_size=8, pool="mean", **tower),
            "text": fdl.Config(TextEncoder, vocab_size=300, causal=False, pool="mean", **tower),
        },
        fusion=fdl.Config(
            Coordinated,
            projections={name: fdl.Config(nn.Dense, 16, use_bias=False) for name in ("image", "text")},
            init_logit_scale=2.0,
        ),
    )
    data = fdl.Config(
        Pipeline,
        source=fdl.Config(ColourSource),
        transforms={
            "image": fdl.Config(ImageTransform, size=16, scale=(0.5, 1.0)),
            "text": fdl.Config(TextTransform, context_length=8, vocab_size=300),
        },
        batch_size=16,
    )
    config = fdl.Config(
        Experiment,
        model=model,
        task=fdl.Config(Contrastive),
        data=data,
        optimizer=fdl.Config(Optimizer, learning_rate=3e-3, schedule=fdl.Config(Schedule, warmup=2)),
        duration="6 steps",
        evaluations={"held_out": fdl.Config(Evaluation, fdl.Config(ColourSource), fdl.Config(RetrievalEvaluator), 16)},
        keep=fdl.Config(Keep, every="2 steps", metric="held_out/mean_recall_at_1"),
        log_every=1,
    )
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def tiny_batch(size: int = 16) -> Batch:
    """Returns a batch of random values that fits `tiny_config`, with a duplicate, padding and a missing text."""
    rng = np.random.default_rng(0)
    text_mask = np.arange(8) < rng.integers(1, 9, (size, 1))
    text_mask[3] = False
    return Batch(
        streams={
            "image": Stream(rng.integers(0, 256, (size, 16, 16, 3), dtype=np.uint8), np.ones((size, 1), bool)),
            "text": Stream(rng.integers(0, 300, (size, 8), dtype=np.int32), text_mask),
        },
        group=np.minimum(np.arange(size), size - 2).astype(np.int32),
        mask=np.arange(size) != 5,
    )


def relative_difference(a, b) -> float:
    """Returns the largest difference of two trees' leaves, each relative to its leaf's largest value.

    A leaf that is nearly zero beside the others (a key's bias has no true gradient) is held to 1/1000 of the largest.
    """
    floor = 1e-3 * max(float(np.max(np.abs(leaf))) for leaf in jax.tree.leaves(a))
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.max(np.abs(x - y)) / max(np.max(np.abs(x)), floor)) for x, y in pairs)
