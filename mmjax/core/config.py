"""Configs: load `get_config()` of a file, override by path, store as JSON, build only what is allowed."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fiddle as fdl
from fiddle._src.config import BuildableTraverserMetadata
from fiddle.experimental import serialization

from mmjax.core.errors import UserError, listed, nearest

ALLOWED_MODULES = ("mmjax", "flax.linen")


def load_config(spec: str) -> fdl.Config:
    """Returns `get_config(arg)` of 'PATH.py' or 'PATH.py:ARG', ARG being a size such as 'smoke' or 'B/16'.

    Raises:
      UserError: no such file, or one without get_config.
    """
    name, _, argument = spec.partition(":")
    path = pathlib.Path(name)
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"--config {name}: there is no such file.{nearest(name, siblings)}")
    module_spec = importlib.util.spec_from_file_location(f"mmjax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config {name}: the file has no function get_config().")
    return module.get_config(argument) if argument else module.get_config()


def override(config: fdl.Config, assignment: str) -> None:
    """Sets one value of config from 'path.to.key=VALUE'; VALUE is a Python literal, or else a string.

    Raises:
      UserError: no '=', or a name in the path that does not exist (lists the valid ones).
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise UserError(f"--set {assignment}: expected PATH=VALUE, as in model.encoders.image.width=512.")
    *parents, last = path.strip().split(".")
    node = config
    for name in parents:
        node = _child(node, name, path)
    old = _child(node, last, path)
    _assign(node, last, _same_kind(old, _literal(text), path))


def _names(node: Any) -> list[str]:
    if isinstance(node, fdl.Buildable):
        names = list(node.__signature_info__.parameters)
        return [name for name in names if name not in ("parent", "name")] if "parent" in names else names  # flax's own
    if isinstance(node, dict):
        return list(node)
    return [str(i) for i in range(len(node))] if isinstance(node, (list, tuple)) else []


def _child(node: Any, name: str, path: str) -> Any:
    names = _names(node)
    if name not in names:
        valid = listed(names, 40) or "none"
        raise UserError(f"--set {path}: there is no {name!r}.{nearest(name, names)} Valid names here: {valid}.")
    if isinstance(node, fdl.Buildable):
        return _argument(node, name)
    return node[name] if isinstance(node, dict) else node[int(name)]


def _argument(node: fdl.Buildable, name: str) -> Any:
    """Returns the value of a parameter; the default that a factory makes becomes a config of its own first."""
    fields = dataclasses.fields(node.__fn_or_cls__) if dataclasses.is_dataclass(node.__fn_or_cls__) else ()
    factory = {field.name: field.default_factory for field in fields}.get(name, dataclasses.MISSING)
    if name not in node.__arguments__ and factory is not dataclasses.MISSING:
        setattr(node, name, fdl.Config(factory) if dataclasses.is_dataclass(factory) else factory())
    return getattr(node, name, None)


def _assign(node: Any, name: str, value: Any) -> None:
    if isinstance(node, fdl.Buildable):
        setattr(node, name, value)
    elif isinstance(node, dict):
        node[name] = value
    elif isinstance(node, list):
        node[int(name)] = value
    else:
        raise UserError(f"--set: {name!r} is inside a tuple; set the whole tuple instead.")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _same_kind(old: Any, new: Any, path: str) -> Any:
    number = (int, float)
    if isinstance(old, bool) != isinstance(new, bool) and isinstance(old, (bool, *number)) and new is not None:
        raise UserError(f"--set {path}={new!r}: expected a {type(old).__name__}, as the present value {old!r}.")
    if isinstance(old, number) and isinstance(new, str):
        raise UserError(f"--set {path}={new!r}: expected a number, as the present value {old!r}.")
    return new


def describe(config: fdl.Config) -> str:
    """Returns a line 'path = value' for all that --set can set; what the config leaves to a constructor is (default)."""
    return "\n".join(_lines(fdl.deepcopy_with(config), ""))


def _lines(node: Any, path: str) -> Iterator[str]:
    for name in _names(node):
        value, given = _child(node, name, path), not isinstance(node, fdl.Buildable) or name in node.__arguments__
        inner = f"{path}.{name}".lstrip(".")
        if isinstance(value, (fdl.Buildable, dict)) and value:
            yield from _lines(value, inner)
        elif given or not callable(value):  # a default that is a function is no business of --set
            yield f"{inner} = {value!r}{'' if given else '  (default)'}"


def construct(config: Any) -> Any:
    """Returns what config describes.

    Raises:
      UserError: of a constructor, as its sentence alone, without what fiddle adds to it.
    """
    try:
        return fdl.build(config)
    except UserError as error:
        raise getattr(error, "proxy_base_exception", error) from None


class AllowList(serialization.PyrefPolicy):
    """Lets a stored config name only dataclasses (flax modules are such) of the allowed packages.

    Nothing else is imported, and no function is called but those marked with `configurable`.
    """

    def __init__(self, modules: Sequence[str] = ALLOWED_MODULES):
        self.modules = tuple(modules)

    def _inside(self, module: str) -> bool:
        return any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.modules)

    def allows_import(self, module: str, symbol: str) -> bool:
        return self._inside(module) or (module, symbol) in _STRUCTURE

    def allows_value(self, value: Any) -> bool:
        if value in (fdl.Config, BuildableTraverserMetadata, dict, list, tuple, set):
            return True
        ours = self._inside(getattr(value, "__module__", ""))
        return ours and (dataclasses.is_dataclass(value) or getattr(value, "configurable", False))


_STRUCTURE = {
    ("fiddle._src.config", "Config"),
    ("fiddle._src.config", "BuildableTraverserMetadata"),
    *(("builtins", name) for name in ("dict", "list", "tuple", "set")),
}


def configurable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a function that a stored config may call."""
    function.configurable = True
    return function


def to_json(config: fdl.Config) -> str:
    """Returns config as JSON that `from_json` reads back."""
    return json.dumps(json.loads(serialization.dump_json(config)), indent=1)


def from_json(text: str, allow: Sequence[str] = ()) -> fdl.Config:
    """Returns the config stored by `to_json`; only mmjax, flax.linen and the packages in `allow` are imported.

    Raises:
      UserError: the JSON names an object of another package.
    """
    try:
        return serialization.load_json(text, AllowList((*ALLOWED_MODULES, *allow)))
    except serialization.PyrefPolicyError as error:
        raise UserError(
            f"the stored config names an object outside the allowed packages, and was not loaded: {error}. "
            "If you trust it, allow its package with --allow-import."
        ) from error


def set_everywhere(config: Any, name: str, value: Any) -> None:
    """Sets parameter `name` to value in every sub-config whose constructor has it and whose value is not set."""
    if isinstance(config, fdl.Buildable):
        if name in config.__signature_info__.parameters and name not in config.__arguments__:
            setattr(config, name, value)
        children = list(config.__arguments__.values())
    elif isinstance(config, dict):
        children = list(config.values())
    else:
        children = list(config) if isinstance(config, (list, tuple)) else []
    for child in children:
        set_everywhere(child, name, value)
