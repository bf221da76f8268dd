"""Parameter trees by path: flatten, match rules, merge strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from mmjax.core.errors import UserError, listed, nearest


def path_name(path: tuple[Any, ...]) -> str:
    """Returns 'a/b/kernel' for a jax key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any) -> dict[str, Any]:
    """Returns path -> leaf, in tree order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def map_with_path(fn: Callable[..., Any], tree: Any, *rest: Any, **kwargs: Any) -> Any:
    """Like jax.tree.map with the leaf's path name as the first argument of fn."""
    return jax.tree_util.tree_map_with_path(lambda path, *leaves: fn(path_name(path), *leaves), tree, *rest, **kwargs)


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Says whether any pattern matches the whole of name."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def path_mask(tree: Any, patterns: Sequence[str], what: str) -> Any:
    """Returns a tree of bool, True where one of the patterns matches the leaf's whole path.

    Raises:
      UserError: a pattern that matches no leaf; `what` names the config key in the message.
    """
    names = list(flatten(tree))
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise UserError(
                f"{what}: the pattern {pattern!r} matches no parameter.{nearest(pattern, names)} "
                f"The parameters are: {listed(names)}"
            )
    return map_with_path(lambda name, _: matches_any(name, patterns), tree)


def strict_merge(
    target: Any,
    loaded: Mapping[str, Any],
    *,
    allow_missing: Sequence[str] = (),
    allow_extra: Sequence[str] = (),
) -> Any:
    """Returns target with its leaves replaced by those of loaded (path -> array).

    Args:
      target: a tree of arrays.
      loaded: the same paths -> arrays of the same shapes.
      allow_missing: patterns of target paths that may be absent from loaded; these keep target's values.
      allow_extra: patterns of loaded paths that target may lack; these are left out.

    Raises:
      UserError: lists every missing, extra and mis-shaped weight that no pattern names.
    """
    names = flatten(target)
    problems = [
        f"missing: {name} {tuple(leaf.shape)}"
        for name, leaf in names.items()
        if name not in loaded and not matches_any(name, allow_missing)
    ]
    problems += [
        f"extra: {name} {tuple(leaf.shape)}"
        for name, leaf in loaded.items()
        if name not in names and not matches_any(name, allow_extra)
    ]
    problems += [
        f"mis-shaped: {name} is {tuple(loaded[name].shape)}, expected {tuple(leaf.shape)}"
        for name, leaf in names.items()
        if name in loaded and loaded[name].shape != leaf.shape and not matches_any(name, allow_missing)
    ]
    if problems:
        raise UserError(
            f"{len(problems)} weights do not fit the model (allow_missing and allow_extra name what to accept):\n  "
            + "\n  ".join(problems)
        )

    def take(name: str, leaf: Any) -> Any:
        fits = name in loaded and loaded[name].shape == leaf.shape
        return loaded[name] if fits else leaf

    return map_with_path(take, target)
