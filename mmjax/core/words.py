"""Texts as rows of an array, to travel with a batch: written by `data.text_target`, read by evaluators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmjax.core.errors import UserError


def pack(encoded: Sequence[bytes | None], length: int) -> np.ndarray:
    """Returns [N, length] uint8 of texts in UTF-8 of at most `length` bytes, filled up with zeros, all for None."""
    rows = np.zeros((len(encoded), length), np.uint8)
    for row, text in zip(rows, encoded, strict=True):
        row[: len(text or b"")] = np.frombuffer(text or b"", np.uint8)
    return rows


def unpack(rows: np.ndarray, what: str) -> list[str]:
    """Returns the texts of rows [N, L] uint8 that `pack` made; `what` names them in the message.

    Raises:
      UserError: they are no such rows.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2 or rows.dtype != np.uint8:
        raise UserError(
            f"{what} is {rows.dtype} {list(rows.shape)}; expected texts as mmjax.data.text_target.TextTarget gives "
            "them, uint8 [N, L]."
        )
    return [bytes(row).rstrip(b"\0").decode() for row in rows]
