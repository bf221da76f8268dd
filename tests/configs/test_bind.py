"""configs/bind.py: the published size is CLIP's B/16 and AST's base, and shards over a pod."""

import pathlib

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from mmjax.core.config import load_config
from mmjax.core.mesh import AXES
from mmjax.core.trees import flatten
from mmjax.core.types import Stream
from mmjax.training.experiment import build
from mmjax.training.sharding import param_specs

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "bind.py"


def test_an_anchor_may_be_the_text():
    config = load_config(f"{CONFIG}:text_anchor")
    parts = [part.source.columns for part in config.data.source.sources]
    assert parts == [["caption", "image"], ["caption", "audio"]]  # and never pictures with speech
    assert list(config.model.fusion.pairs) == list(config.task.pairs) == ["text+image", "text+audio"]
    assert {"text_image", "audio_image", "text_audio"} <= set(config.evaluations)


def test_the_published_size_has_the_published_towers_and_shards_over_a_pod():
    config = load_config(f"{CONFIG}:base")
    audio, image, text = (config.data.transforms[name] for name in ("audio", "image", "text"))
    samples = round(audio.seconds * 16_000)
    streams = {
        "audio": Stream(jnp.zeros((2, samples), jnp.int16), jnp.ones((2, samples), bool)),
        "image": Stream(jnp.zeros((2, image.size, image.size, 3), jnp.uint8), jnp.ones((2, 1), bool)),
        "text": Stream(jnp.zeros((2, text.context_length), jnp.int32), jnp.ones((2, text.context_length), bool)),
    }
    config.data, config.evaluations = None, {}  # nothing is opened
    model = build(config).model
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), streams)["params"])
    sizes = {path: leaf.size for path, leaf in flatten(params).items()}
    of_audio = sum(size for path, size in sizes.items() if "audio" in path.split("/")[-1] or "_audio/" in path)
    # patches of 16 x 16, class token, 1 + 20 x 12 positions, 12 blocks, the last norm, the projection, a temperature
    block = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    positions = 1 + 20 * 12
    assert of_audio == 256 * 768 + 768 + 768 + positions * 768 + 12 * block + 1536 + 768 * 512 + 1
    assert sum(sizes.values()) == 149_620_737 + of_audio
    specs = param_specs(params, AbstractMesh((16, 16, 1), AXES))
    assert sum(size for path, size in sizes.items() if "fsdp" in specs[path]) > 0.99 * sum(sizes.values())
