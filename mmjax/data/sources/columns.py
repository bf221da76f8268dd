"""What every source does alike: guess which column holds what, and check a picture or a caption that was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.source import BadRecord

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif")
"""File endings of an encoded picture."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        *("image", "images", "img", "image_path", "img_path", "image_file", "filepath", "file_path", "image_name"),
        *("file_name", "filename", "path", "file", "picture", "photo", "jpg", "jpeg", "png", "url", "image_url"),
    ),
    "caption": (
        *("caption", "captions", "text", "texts", "txt", "title", "sentence", "sentences", "raw", "description"),
        *("comment", "comments", "alt_text", "alt", "prompt", "name", "en"),
    ),
}
"""Standard column -> what data sets call it, the likeliest first."""


def guess(names: Iterable[str], column: str) -> str | None:
    """Returns the likeliest of `names` for a standard column, or None.

    Case, and the spaces and marks around a name, do not count. A path such as 'captions/text' is judged by its
    last part, then by the others.
    """
    keys = {_plain(name): name for name in reversed(list(names))}
    for known in NAMES[column]:
        if known in keys:
            return keys[known]
    tails = {part: name for key, name in keys.items() for part in key.split("/")}
    return next((tails[known] for known in NAMES[column] if known in tails), None)


def chosen(columns: Mapping[str, str], names: Iterable[str], where: str) -> dict[str, str]:
    """Returns `columns` (standard column -> the data's own name) once every own name is known to exist.

    Raises:
      UserError: one does not.
    """
    names = list(names)
    for column, name in columns.items():
        if name not in names:
            raise UserError(
                f"columns[{column!r}] is {name!r}, which {where} does not have.{nearest(name, names)} "
                f"It has {listed(names)}."
            )
    return dict(columns)


def captions(value: object, where: str) -> list[str]:
    """Returns the captions of one record, blanks stripped and blank ones left out; none may be left.

    That none is left is for who reads captions to refuse (`data.text`): a record's picture is as good without.

    Args:
      value: str, bytes in UTF-8, or a sequence of them.
      where: the record, for the message.

    Raises:
      BadRecord: 'undecodable_caption' where one is not UTF-8 or no text at all.
    """
    values = [value] if isinstance(value, str | bytes) or not isinstance(value, Iterable) else value
    return [text for text in (_text(v, where).strip() for v in values if v is not None) if text]


def image(value: bytes, where: str) -> bytes:
    """Returns the encoded picture.

    Raises:
      BadRecord: 'empty_file' where it has no byte.
    """
    if not value:
        raise BadRecord("empty_file", f"The picture of {where} has 0 bytes.")
    return value


def _text(value: object, where: str) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8-sig")
        except UnicodeDecodeError as e:
            raise BadRecord("undecodable_caption", f"A caption of {where} is not UTF-8: {e}.") from e
    if isinstance(value, str):
        return value
    raise BadRecord("undecodable_caption", f"A caption of {where} is of type {type(value).__name__}, not text.")


def _plain(name: str) -> str:
    return name.strip().strip("\"'").lower().replace(" ", "_").replace("-", "_")
