"""`--data SPEC`: opens whatever source a short text names, and says what was found there."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fiddle as fdl

from mmjax.core.config import configurable
from mmjax.core.errors import UserError, listed, nearest, one_of
from mmjax.core.secrets import masked
from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.data.mixture import Mixture
from mmjax.data.source import BadRecord, Source, unreadable
from mmjax.data.sources import FolderSource, ManifestSource, TfdsSource, WebDatasetSource, columns, files
from mmjax.data.sources.view import View

FORMS = (
    "openmoji[:SPLIT], tfds:NAME[:SPLIT], tar shards ('shard-{00000..00099}.tar', 'shards/*.tar'), a manifest (.jsonl, "
    ".csv, .tsv; 'captions.csv:FOLDER' where its paths start from, or lie in, another folder), or a folder of pictures "
    "with .txt files of the same names"
)
"""What a SPEC can be, for help texts."""

_SPLIT = re.compile(r"(.+?)(?::([A-Za-z_]\w*(?:\[[^\]]*\])?(?:\+[A-Za-z_]\w*(?:\[[^\]]*\])?)*))?")
_TAR = re.compile(r"\.(tar|tgz|tar\.\w+)$")
_MANIFESTS = (".jsonl", ".ndjson", ".csv", ".tsv")
_ROOTED = re.compile(rf"(.+(?:{'|'.join(map(re.escape, _MANIFESTS))})):(.+)", re.IGNORECASE)


@configurable
def open_spec(
    spec: str,
    needs: Sequence[str] = ("image", "caption"),
    columns: Mapping[str, str] | None = None,
    cache_dir: str | None = None,
) -> Source:
    """Returns the source that `spec` names, once it is sure to have records with the columns in `needs`.

    Args:
      spec: one of `FORMS`.
      needs: columns that the config's transforms read.
      columns: of the source, where its own names are not guessed: --set "data.source.columns={'image': 'photo'}".
      cache_dir: of tar shards, for their index.

    Raises:
      UserError: nothing is there, it is of no known form, it cannot be read, it lacks a column, or a setting is none
        of its kind.
    """
    settings = {"columns": columns, "cache_dir": cache_dir}
    settings = {name: value for name, value in settings.items() if value is not None}
    try:
        source = _opened(spec.strip(), settings)
    except OSError as error:
        raise UserError(f"--data {spec!r} cannot be read: {error}") from error
    missing = [column for column in needs if column not in source.columns]
    if missing or not len(source):
        raise UserError(_unfit(spec, source, needs, missing))
    return source


def point_at(data: fdl.Config, spec: str) -> None:
    """Makes a Pipeline's config read what `spec` names; the columns that its transforms read must be there.

    A mixture of one source and views of it (pairs, pictures alone, names alone) stays one, of what spec names.
    """
    columns = {transform.column for transform in data.transforms.values()}
    opened = fdl.Config(open_spec, spec, sorted(columns))
    parts = data.source.sources if _is(data.source, Mixture) else []
    wholes = [part.source if _is(part, View) else part for part in parts]
    if not parts or any(whole is not wholes[0] for whole in wholes):
        data.source = opened
        return
    data.source.sources = [fdl.copy_with(part, source=opened) if _is(part, View) else opened for part in parts]


def _is(config: object, kind: type) -> bool:
    return isinstance(config, fdl.Config) and fdl.get_callable(config) is kind


def describe(source: Source) -> str:
    """Returns a few lines for a person: how many records, which column comes from where, and one caption.

    Credentials are masked.
    """
    lines = [f"{source.name}: {len(source):,} records"]
    mapping = getattr(source, "mapping", {column: "" for column in source.columns})
    lines += [f"  {column} <- {origin}" if origin else f"  {column}" for column, origin in mapping.items()]
    if found := getattr(source, "found", ""):
        lines.append(f"  found: {found}")
    if example := _example(source):
        lines.append(f"  for instance: {example}")
    return masked("\n".join(lines))


def _opened(spec: str, settings: Mapping[str, Any]) -> Source:
    """Returns the source of a spec by its form alone."""

    def made(kind: type, *args: Any, **more: Any) -> Source:
        fields = [field.name for field in dataclasses.fields(kind)]
        for name in settings:
            one_of(name, fields, f"--data {spec!r}, a {kind.__name__}: the setting")
        return kind(*args, **more, **settings)

    match = _SPLIT.fullmatch(spec.removeprefix("tfds:"))
    name, split = match.groups() if match else ("", None)
    if name == "openmoji":  # builds itself on first use
        return made(OpenMojiSource, split or "train")
    if spec.startswith("tfds:"):
        return made(TfdsSource, name, split or "train")
    if os.path.isdir(spec):  # before its ending is looked at
        return _folder(spec, made)
    if _TAR.search(spec):
        return made(WebDatasetSource, spec)
    if os.path.splitext(spec)[1].lower() in _MANIFESTS:
        return made(ManifestSource, spec)
    if rooted := _ROOTED.fullmatch(spec):
        return made(ManifestSource, rooted[1], root=rooted[2])
    if files.is_remote(spec) and not os.path.splitext(spec)[1]:
        return _folder(spec, made)
    if os.path.exists(spec):
        raise UserError(f"--data {spec!r} is a file of no known form. It can be {FORMS}.")
    known = nearest(name, ["openmoji"]) if os.sep not in spec else ""
    raise UserError(f"--data {spec!r} does not exist.{known or files.siblings(spec)} It can be {FORMS}.")


def _folder(path: str, made: Callable[..., Source]) -> Source:
    """Returns the source of a folder: pictures, or a prepared TFDS version.

    Raises:
      UserError: it holds shards or manifests instead, which the message then names, or nothing of use.
    """
    if os.path.exists(os.path.join(path, "dataset_info.json")):
        return made(TfdsSource, path)
    source = made(FolderSource, path)
    if "caption" in source.columns:
        return source
    hints = _instead(path)
    if hints:
        raise UserError(f"--data {path!r}: found {source.found}. Did you mean {hints}?")
    return source


def _instead(path: str) -> str:
    """Returns the shards, manifests or TFDS versions in a folder, as specs."""
    there = files.walk(path)
    specs = sorted({os.path.join(path, os.path.dirname(p), "*.tar") for p in there if p.endswith(".tar")})
    specs += [os.path.join(path, p) for p in there if os.path.splitext(p)[1].lower() in _MANIFESTS]
    specs += [os.path.join(path, os.path.dirname(p)) for p in there if os.path.basename(p) == "dataset_info.json"]
    return " or ".join(repr(f"tfds:{s}" if os.path.isdir(s) else s) for s in specs[:3])


def _unfit(spec: str, source: Source, needs: Sequence[str], missing: Sequence[str]) -> str:
    """Returns the sentence for a source that lacks records or columns."""
    what = f"no records for {listed(missing)}" if missing else "no records"
    read = ", ".join(f"{column!r} from {origin}" for column, origin in getattr(source, "mapping", {}).items())
    return (
        f"--data {spec!r} gives {what}. Needed: {listed(needs)}. Found: {getattr(source, 'found', 'nothing')}"
        f"{f', read as {read}' if read else ''}. {getattr(source, 'how', '')}".rstrip()
    )


def _example(source: Source) -> str:
    """Returns the first caption of the first good record of a few, or ''."""
    for index in range(min(len(source), 8)):
        try:
            found: Any = source.read(index).get("caption")
            texts = columns.captions(found, source.label(index))
        except BadRecord:
            continue
        except OSError as error:
            raise unreadable(source, index, error) from error
        if texts:
            text = texts[0]
            return repr(text if len(text) <= 80 else text[:77] + "...")
    return ""
