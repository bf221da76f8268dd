"""Where an explanation takes hold of a model: attention, pools, and the tokens that encoders are given and give.

No fusion and no encoder is named here: the places are told by the classes of `layers`, as modules are called, so a new
model that is built from these layers has them too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from mmjax.core.errors import UserError
from mmjax.core.types import Array, Stream, Tokens
from mmjax.layers.conformer import Conformer
from mmjax.layers.hooks import INTERMEDIATES
from mmjax.layers.pooling import Pool
from mmjax.layers.space_time import DividedTransformer
from mmjax.layers.transformer import Transformer
from mmjax.model import ENCODERS, TEACHERS

Path = tuple[str, ...]
JOINT = ("fusion", "missing")

TOWERS = (Transformer, DividedTransformer, Conformer)
ATTENTION, TOKENS = "attention", "tokens"

Change = Callable[[nn.Module, jax.Array], jax.Array]
"""(module, tokens [..., N, D]) -> tokens."""
Rule = Callable[[nn.Module, Callable[..., Any], tuple, dict], Any]
"""(module, its call, arguments, keyword arguments) -> what the call gives instead."""


@dataclasses.dataclass(frozen=True)
class Sites:
    """The places of one model with one batch.

    Attributes:
      kinds: path -> 'tower' (tokens that go into an encoder's first layer), 'pool' (that are pooled) or 'encoder'
        (that it gives), in the order in which the model is run.
      attention: path -> [B, H, N, M] float32, or [depth, B, H, N, M] of scanned layers.
      tokens: path -> [B, N] float32; the paths are those of kinds.
    """

    kinds: dict[Path, str]
    attention: dict[Path, jax.ShapeDtypeStruct]
    tokens: dict[Path, jax.ShapeDtypeStruct]

    def tower(self, modality: str) -> Path | None:
        """Returns the path of the first tower of an encoder; None where it has none."""
        return next((path for path in self._of(modality) if self.kinds[path] == "tower"), None)

    def ends(self, modality: str) -> list[Path]:
        """Returns the paths of the tokens that an encoder pools and gives, those of the last shape alone."""
        paths = [path for path in self._of(modality) if self.kinds[path] != "tower"]
        return [path for path in paths if self.tokens[path].shape == self.tokens[paths[-1]].shape]

    def joint_attention(self) -> list[Path]:
        """Returns the paths of the attention that joins modalities: of the fusion, not of encoders or decoders."""
        return [path for path in self.attention if path[0] in JOINT]

    def _of(self, modality: str) -> list[Path]:
        return [path for path in self.kinds if path[0] == f"{ENCODERS}{modality}"]


def find_sites(model: nn.Module, params: Any, streams: Mapping[str, Stream]) -> Sites:
    """Returns the places of a model, by tracing it.

    Raises:
      UserError: an attention layer that is called several times in one pass, whose weights would be told apart by none.
    """
    kinds: dict[Path, str] = {}

    def record(module: nn.Module, x: jax.Array) -> jax.Array:
        kinds[(*module.path, TOKENS)] = _kind(module)
        module.sow(INTERMEDIATES, TOKENS, jnp.zeros(x.shape[:-1], jnp.float32))
        return x

    def trace(params: Any, streams: Mapping[str, Stream]) -> Any:
        return run(model, {"params": params}, streams, at_tokens(record))[1]

    shapes = {path: only(path, leaf) for path, leaf in flatten_dict(jax.eval_shape(trace, params, streams)).items()}
    attention = {path: shape for path, shape in shapes.items() if path[-1] == ATTENTION}
    return Sites(kinds, attention, {path: shapes[path] for path in kinds})


def run(model: nn.Module, variables: Mapping[str, Any], streams: Mapping[str, Stream], rule: Rule) -> tuple[Any, Any]:
    """Returns (outputs, what was stored) of the model without noise, every call in it under the rule, but teachers'."""

    def intercept(call: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if context.method_name != "__call__" or _taught(context.module.path):
            return call(*args, **kwargs)
        return rule(context.module, call, args, kwargs)

    with nn.intercept_methods(intercept):
        outputs, stored = model.apply(variables, dict(streams), None, mutable=[INTERMEDIATES])
    return outputs, {name: each for name, each in stored.get(INTERMEDIATES, {}).items() if not _taught((name,))}


def at_tokens(change: Change) -> Rule:
    """Returns the rule that changes the tokens of every site and nothing else."""

    def rule(module: nn.Module, call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        kind = _kind(module)
        if kind in ("pool", "tower"):
            return call(change(module, args[0]), *args[1:], **kwargs)
        found = call(*args, **kwargs)
        if kind == "encoder" and isinstance(found, Tokens):
            return found.replace(x=change(module, found.x))
        return found

    return rule


def _kind(module: nn.Module) -> str | None:
    path = module.path
    if isinstance(module, Pool):
        return "pool"
    if not path or not path[0].startswith(ENCODERS):
        return None
    if len(path) == 1:
        return "encoder"
    return "tower" if isinstance(module, TOWERS) else None


def _taught(path: Path) -> bool:
    """Says whether path is a teacher's: an explanation is of the model itself, not of what taught it."""
    return bool(path) and path[0].startswith(TEACHERS)


def only(path: Path, stored: tuple[Any, ...]) -> Any:
    """Returns the one value that was stored at path.

    Raises:
      UserError: there are several.
    """
    if len(stored) > 1:
        raise UserError(
            f"relevancy: {'/'.join(path[:-1])} is called {len(stored)} times in one pass; expected one call a pass, so "
            "that its weights are those of one place."
        )
    return stored[0]


def collection(values: Mapping[Path, Array]) -> dict[str, Any]:
    """Returns path -> array as a collection of variables."""
    return unflatten_dict(dict(values))


def stored_attention(stored: Mapping[str, Any]) -> dict[Path, jax.Array]:
    """Returns path -> weights of what a pass has stored."""
    return {path: only(path, leaf) for path, leaf in flatten_dict(dict(stored)).items() if path[-1] == ATTENTION}
