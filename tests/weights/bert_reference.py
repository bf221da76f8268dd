"""BERT in NumPy, from the raw tensors and the papers alone, and a tiny random one, for tests."""

import json
import math
import pathlib

import numpy as np
from scipy.special import erf

VOCABULARY, WIDTH, DEPTH, HEADS, HIDDEN, POSITIONS = 20, 12, 3, 3, 24, 10


def forward(tensors: dict, ids: np.ndarray, mask: np.ndarray, heads: int, epsilon: float = 1e-12) -> np.ndarray:
    """Returns the hidden states [B, N, D] in float64."""
    tensors = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + tensors["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    batch, length, width = x.shape
    for number in range(1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder."))):
        layer = f"encoder.layer.{number}."
        query, key, value = (
            linear(x, f"{layer}attention.self.{name}").reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        logits = query @ key.transpose(0, 1, 3, 2) / math.sqrt(width // heads)
        weights = np.exp(np.where(mask[:, None, None], logits, -np.inf) - logits.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + linear(mixed, f"{layer}attention.output.dense"), f"{layer}attention.output.LayerNorm")
        hidden = linear(x, f"{layer}intermediate.dense")
        hidden = hidden * (1 + erf(hidden / math.sqrt(2))) / 2
        x = norm(x + linear(hidden, f"{layer}output.dense"), f"{layer}output.LayerNorm")
    return x


def tiny_tensors(vocabulary: int = VOCABULARY) -> dict[str, np.ndarray]:
    """Returns name -> float32 tensor of a random BERT, as its authors' library names and shapes them."""
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    names = {"embeddings.LayerNorm": (WIDTH,)}
    for number in range(DEPTH):
        layer = f"encoder.layer.{number}."
        names |= {f"{layer}attention.self.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")}
        names |= {f"{layer}attention.output.dense": (WIDTH, WIDTH), f"{layer}attention.output.LayerNorm": (WIDTH,)}
        names |= {f"{layer}intermediate.dense": (HIDDEN, WIDTH), f"{layer}output.dense": (WIDTH, HIDDEN)}
        names |= {f"{layer}output.LayerNorm": (WIDTH,)}
    for name, shape in names.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    rng = np.random.default_rng(0)
    mean = {name: float(name.endswith("LayerNorm.weight")) for name in shapes}
    return {name: rng.normal(mean[name], 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write_tiny(folder: pathlib.Path, tensors: dict | None = None, heads: int = HEADS, **said) -> pathlib.Path:
    """Writes model.safetensors and config.json; returns the folder."""
    from mmjax.weights.files import write

    folder.mkdir(exist_ok=True)
    write(folder / "model.safetensors", tiny_tensors() if tensors is None else tensors)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "num_attention_heads": heads} | said))
    return folder
