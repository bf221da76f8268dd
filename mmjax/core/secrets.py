"""Credentials stay out of what is printed and stored: they are masked in every text and config that leaves."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
"""What stands in the place of a secret."""

_NAME = (
    r"(?:[\w.-]*(?:token|secret|password|passwd|signature|credentials?|access[_-]?key[_-]?id"
    r"|(?:api|access|account|secret|private)[_-]?key)|(?:[\w.-]*[_.-])?(?:sig|pwd|auth))"
)
_IN_URL = re.compile(r"(://)[^/\s'\"]*@")
_ASSIGNED = re.compile(rf"(?<![\w.-])({_NAME}=['\"]?)[^&\s'\"#;,)\]}}]+", re.IGNORECASE)
_SECRET = re.compile(_NAME, re.IGNORECASE)
_PATH_ELEMENT = re.compile(r"(?:Attr\(name|Key\(key)=['\"](.*)['\"]\)")


def masked(text: str) -> str:
    """Returns text without the credentials in it: 'https://user:secret@host', '?X-Amz-Signature=...', 'hf_token=...'.

    The texts that this makes of a data spec no longer open it where it needs the credentials: a run that is evaluated
    later on its own data wants it anew (--data).
    """
    return _ASSIGNED.sub(rf"\1{MASK}", _IN_URL.sub(rf"\1{MASK}@", text))


def masked_value(name: str, value: Any) -> Any:
    """Returns value, or the mask where it is a text whose name says that it is secret (`hf_token`)."""
    if not isinstance(value, str):
        return value
    return MASK if value and _SECRET.fullmatch(name) else masked(value)


def masked_json(tree: Any, name: str = "") -> Any:
    """Returns a tree of JSON, such as a stored config, with every text in it masked.

    Args:
      tree: as json.loads gives it; names are keys, or the first of a pair ["Attr(name='hf_token')", value] as fiddle
        writes them.
      name: of the tree itself.
    """
    if isinstance(tree, dict):
        return {key: masked_json(value, name if key == "value" else key) for key, value in tree.items()}
    if isinstance(tree, list):
        if len(tree) == 2 and isinstance(tree[0], str) and (found := _PATH_ELEMENT.fullmatch(tree[0])):
            return [tree[0], masked_json(tree[1], found[1])]
        return [masked_json(value) for value in tree]
    return masked_value(name, tree)
