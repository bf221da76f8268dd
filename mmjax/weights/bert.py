"""Encoders of the BERT family -> TextEncoder: BERT, MiniLM, and the sentence encoders made of them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from mmjax.core.errors import UserError
from mmjax.weights.published import Published
from mmjax.weights.rules import Rule, Table

_THEIRS, _OURS = "encoder.layer.{layer}.", "transformer/{blocks}/"


def _norm(theirs: str, ours: str) -> list[Rule]:
    return [Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")]


def _dense(theirs: str, ours: str, weight: str = "o i -> i o", bias: str = "") -> list[Rule]:
    return [
        Rule(f"{_THEIRS}{theirs}.weight", f"{_OURS}{ours}/kernel", weight),
        Rule(f"{_THEIRS}{theirs}.bias", f"{_OURS}{ours}/bias", bias),
    ]


def _heads(name: str) -> list[Rule]:
    return _dense(f"attention.self.{name}", f"attention/{name}", "(h d) i -> i h d", "(h d) -> h d")


BERT = Table(
    rules=(
        Rule("embeddings.word_embeddings.weight", "vocabulary/embedding"),
        Rule("embeddings.position_embeddings.weight", "positions/table"),
        Rule("embeddings.token_type_embeddings.weight", "token_types"),
        *_norm("embeddings.LayerNorm", "norm_embedding"),
        *_heads("query"),
        *_heads("key"),
        *_heads("value"),
        *_dense("attention.output.dense", "attention/out", "o (h d) -> h d o"),
        *_norm(f"{_THEIRS}attention.output.LayerNorm", f"{_OURS}norm_attention"),
        *_dense("intermediate.dense", "mlp/up"),
        *_dense("output.dense", "mlp/down"),
        *_norm(f"{_THEIRS}output.LayerNorm", f"{_OURS}norm_mlp"),
    ),
    # positions that are counted anyway; what the two objectives of BERT's own training were read from
    left_out=(r"embeddings\.position_ids", r"pooler\..*", r"cls\..*"),
    renamed=((r"^bert\.", ""), (r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
)


_FORM = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
"""Key of config.json -> what it must say where it says anything, as no shape tells."""


@dataclasses.dataclass(frozen=True)
class BertWeights(Published):
    """A BertModel for a TextEncoder with causal=False, norm='post', embedding_norm=True and the sizes in config.json.

    There max_length is max_position_embeddings and token_types is type_vocab_size; activation is 'gelu'. The pooler
    and the heads of BERT's own training are left out. BERT's LayerNorms have an epsilon of 1e-12 and ours 1e-6, which
    changes MiniLM's hidden states by less than 1e-4 of their norm.

    References:
      Devlin et al., BERT, 2019; Wang et al., MiniLM, 2020; Reimers and Gurevych, Sentence-BERT, 2019.
    """

    table: ClassVar[Table] = BERT

    def check(self, config: pathlib.Path, leaves: Mapping[str, Any]) -> None:
        """Raises UserError where config is no JSON, or says another form or number of heads than leaves have."""
        try:
            said = dict(json.loads(config.read_text())) if config.is_file() else {}
        except (ValueError, TypeError) as error:
            raise UserError(f"its config.json is no JSON object ({error}).") from error
        for key, expected in _FORM.items():
            if (found := said.get(key, expected)) != expected:
                raise UserError(f"its config.json says {key}={found!r}, expected {expected!r}.")
        ours = {leaf.shape[-2] for path, leaf in leaves.items() if path.endswith("attention/query/kernel")}
        heads = said.get("num_attention_heads")
        if heads and ours and ours != {heads}:
            raise UserError(f"its config.json says {heads} attention heads, but num_heads of ours is {max(ours)}.")
