"""Override values of a config by path, and show the paths that there are."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any

import fiddle as fdl
import typeguard

from mmjax.core.errors import UserError, listed, nearest, one_of
from mmjax.core.secrets import masked, masked_value


def override(config: fdl.Config, assignment: str) -> None:
    """Sets one value of config from 'path.to.key=VALUE'; VALUE is a Python literal, or else a string.

    Where the value is an object (`model.fusion`), VALUE may be the import path of another class, such as
    'mmjax.fusion.late.Late': it takes over the arguments of the same names, and of the rest its own defaults.

    Raises:
      UserError: no '=', a name in the path that does not exist (lists the valid ones), or a value of another type.
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        raise UserError(f"--set {assignment}: expected PATH=VALUE, as in model.encoders.image.width=512.")
    *parents, last = path.strip().split(".")
    node = config
    for name in parents:
        node = _child(node, name, path)
    _child(node, last, path)  # or says which names there are
    _assign(node, last, _fitting(node, last, text, assignment))


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
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # all that ast.literal_eval names
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _fitting(node: Any, name: str, text: str, assignment: str) -> Any:
    """Returns what text says as the parameter's type wants it: 64.0 as the int 64, one str as a sequence of it.

    Raises:
      UserError: it is of another type.
    """
    old, hint, value = _child(node, name, assignment), _hint(node, name), _literal(text)
    options = [value]
    if value is None and text != "None" and not {type(None), Any} & _members(hint):
        options = [text]  # a name: remat=none
    if isinstance(value, float) and value.is_integer():
        options.append(int(value))
    if isinstance(value, str) and not {str, Any} & _members(hint):
        options = [(value,)]
    for option in options:
        if _is_of(option, hint) and not (isinstance(old, fdl.Buildable) and option is not None):
            return option
    if (old is None or isinstance(old, fdl.Buildable)) and isinstance(value, str) and "." in value:
        return _swapped(old, value, hint, assignment)
    if isinstance(old, fdl.Buildable):
        raise UserError(f"--set {assignment}: expected one of its own values to be set instead: {listed(_names(old))}.")
    wanted = hint.__name__ if isinstance(hint, type) else str(hint).replace("collections.abc.", "")
    raise UserError(f"--set {assignment}: expected {wanted}; the present value is {old!r}.")


def _swapped(old: fdl.Buildable | None, path: str, hint: Any, assignment: str) -> fdl.Config:
    """Returns a config of the class at an import path, with the arguments of old that it has too.

    Raises:
      UserError: there is no such module or class, or it is none of those that the type `hint` allows.
    """
    module, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError, TypeError) as error:
        raise UserError(f"--set {assignment}: there is no module {module!r} ({error}).") from None
    names = [key for key, value in vars(found).items() if isinstance(value, type) and value.__module__ == module]
    one_of(name, names, f"--set {assignment}: the class of {module}")
    cls = getattr(found, name)
    wanted = [member for member in _members(hint) if isinstance(member, type) and not _is_protocol(member)]
    if inspect.isabstract(cls) or (wanted and not issubclass(cls, tuple(wanted))):
        names = listed([member.__name__ for member in wanted if member is not type(None)])
        raise UserError(f"--set {assignment}: {name} cannot be used here; expected {names or 'a class'} to build from.")
    new = fdl.Config(cls)
    for key, value in (old.__arguments__ if old is not None else {}).items():
        if key in new.__signature_info__.parameters:
            setattr(new, key, value)
    return new


def _is_protocol(cls: type) -> bool:
    return getattr(cls, "_is_protocol", False)


def _hint(node: Any, name: str) -> Any:
    """Returns the annotated type of a parameter; Any where there is none."""
    try:
        return typing.get_type_hints(node.__fn_or_cls__).get(name, Any) if isinstance(node, fdl.Buildable) else Any
    except NameError:  # an annotation of another library that cannot be evaluated
        return Any


def _members(hint: Any) -> set[Any]:
    """Returns the types of a union; of another hint, itself."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return set(typing.get_args(hint)) if union else {hint}


def _is_of(value: Any, hint: Any) -> bool:
    if isinstance(value, bool) and bool not in _members(hint):
        return hint is Any
    try:
        typeguard.check_type(value, hint)
    except typeguard.TypeCheckError:
        return False
    return True


def describe(config: fdl.Config) -> str:
    """Returns a line 'path = value' for all that --set can set; (default) is what is left to a constructor."""
    return "\n".join(_lines(fdl.deepcopy_with(config), ""))


def _lines(node: Any, path: str) -> Iterator[str]:
    for name in _names(node):
        value, given = _child(node, name, path), not isinstance(node, fdl.Buildable) or name in node.__arguments__
        inner = f"{path}.{name}".lstrip(".")
        if isinstance(value, (fdl.Buildable, dict)) and value:
            yield from _lines(value, inner)
        elif given or not callable(value):  # a default that is a function is no business of --set
            value = masked_value(name, value)
            yield f"{inner} = {masked(repr(value))}{'' if given else '  (default)'}"
