"""Configs: load `get_config()` of a file, build it, store it as JSON, and load of that only what is allowed."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import json
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fiddle as fdl
from fiddle import daglish
from fiddle._src.config import BuildableTraverserMetadata
from fiddle.experimental import serialization

from mmjax.core.errors import UserError, listed, nearest

ALLOWED_MODULES = ("mmjax", "flax.linen")


def load_config(spec: str) -> fdl.Config:
    """Returns `get_config(arg)` of 'PATH.py' or 'PATH.py:ARG', ARG being a size such as 'smoke' or 'B/16'.

    Raises:
      UserError: no such file, one without get_config, or one that fails, which the sentence says by its line.
    """
    name, _, argument = spec.partition(":")
    path = pathlib.Path(name)
    if not _is_file(path):
        near = {str(p) for folder in (path.parent, pathlib.Path("configs")) for p in folder.glob("*.py")}
        raise UserError(f"--config {name}: there is no such file.{nearest(name, sorted(near))}")
    if path.suffix != ".py":
        raise UserError(f"--config {name}: expected a Python file with a function get_config().")
    module_spec = importlib.util.spec_from_file_location(f"mmjax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses of the file look themselves up there
    with _failures(spec, path):
        module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config {name}: the file has no function get_config().")
    with _failures(spec, path):
        return module.get_config(argument) if argument else module.get_config()


@contextlib.contextmanager
def _failures(spec: str, path: pathlib.Path) -> Iterator[None]:
    """Raises what fails in a config file as a sentence with its line."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--config {spec}: {error}") from error
    except Exception as error:  # the file is the user's and may fail in any way
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if pathlib.Path(frame.filename).resolve() == path.resolve()]
        line = lines[-1] if lines else getattr(error, "lineno", "?")  # of a file that cannot be parsed
        first = (str(error).splitlines() or [""])[0]
        raise UserError(f"--config {spec}: line {line} fails with {type(error).__name__}: {first}") from error


def _is_file(path: pathlib.Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or a folder that may not be looked into
        return False


def construct(config: Any) -> Any:
    """Returns what config describes.

    Raises:
      UserError: of a constructor, as its sentence alone, without what fiddle adds to it; or arguments are missing.
    """
    for value, path in daglish.iterate(config):
        if isinstance(value, fdl.Config) and (missing := _missing(value)):
            where = daglish.path_str(path).lstrip(".") or "the config"
            raise UserError(f"{where}: {value.__fn_or_cls__.__name__} needs a value of {listed(missing)}.")
    try:
        return fdl.build(config)
    except UserError as error:
        raise getattr(error, "proxy_base_exception", error) from None


def _missing(config: fdl.Config) -> list[str]:
    """Returns the parameters that have neither a value nor a default."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        name
        for name, parameter in config.__signature_info__.parameters.items()
        if parameter.kind in named and parameter.default is parameter.empty and name not in config.__arguments__
    ]


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
    """Returns config as JSON that `from_json` reads back.

    Raises:
      UserError: it holds something that cannot be imported again, such as a class of the config file itself.
    """
    try:
        return json.dumps(json.loads(serialization.dump_json(config)), indent=1)
    except serialization.UnserializableValueError as error:
        raise UserError(
            f"the config cannot be stored with the checkpoints: {error}. What it holds must be plain values and "
            "classes of modules that can be imported, not of the config file itself."
        ) from error


def from_json(text: str, allow: Sequence[str] = ()) -> fdl.Config:
    """Returns the config stored by `to_json`; only mmjax, flax.linen and the packages in `allow` are imported.

    Raises:
      UserError: the JSON names an object of another package, one that this version does not have, or is no config.
    """
    try:
        config = serialization.load_json(text, AllowList((*ALLOWED_MODULES, *allow)))
    except serialization.PyrefPolicyError as error:
        raise UserError(
            f"the stored config names an object outside the allowed packages, and was not loaded: {error}. "
            "If you trust it, allow its package with --allow-import."
        ) from error
    except (ImportError, AttributeError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"the stored config is of another version of mmjax, or of what it names: {first}") from error
    except Exception as error:  # fiddle's reader checks nothing: a damaged text fails anywhere inside it, as anything
        found = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"the stored config is damaged and cannot be read ({found[:200]}).") from error
    if not isinstance(config, fdl.Config):
        raise UserError(f"the stored config is damaged: it holds a {type(config).__name__}, not a config.")
    return config


def sub_configs_with(config: Any, name: str) -> list[tuple[str, fdl.Buildable]]:
    """Returns (path, sub-config) of every sub-config whose constructor has a parameter `name`; 'encoders.image'."""
    return [
        (".".join(str(*dataclasses.astuple(element)) for element in path), node)
        for node, path in daglish.iterate(config)
        if isinstance(node, fdl.Buildable) and name in node.__signature_info__.parameters
    ]


def set_everywhere(config: Any, name: str, value: Any, overwrite: bool = False) -> None:
    """Sets parameter `name` to value in every sub-config whose constructor has it, set values only where overwrite."""
    for _, node in sub_configs_with(config, name):
        if overwrite or name not in node.__arguments__:
            setattr(node, name, value)
