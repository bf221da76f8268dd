"""A data set before it trains: what is there, how fast its records come, and how many are damaged."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import time
from typing import Any

import numpy as np

from mmjax.core.errors import UserError
from mmjax.data.source import BadRecord, Source, unreadable
from mmjax.data.spec import open_spec
from mmjax.doctor.findings import DOUBTFUL, WRONG, Finding

SECONDS = 3.0
"""That records are read for."""

MOST_BAD = 0.01
"""Share of damaged records above which training stops by itself (Pipeline.max_bad_share)."""

_TURN = 64


def look(spec: str, seconds: float = SECONDS) -> Finding:
    """Returns how many records a source has, and how fast they are read here in random order, not decoded.

    Args:
      spec: what --data takes.
      seconds: that are spent on reading, about; a turn of records is finished.
    """
    what = f"data {spec}"
    try:
        source = open_spec(spec, needs=())
        read, size, bad, spent = _read(source, seconds)
    except UserError as error:
        return Finding(what, str(error), WRONG, "name other data, or mend what is there")
    found = f"{len(source):,} records of {', '.join(source.columns)}; reads {read / spent:,.0f} records/s"
    found += f", {size / spent / 1e6:,.1f} MB/s"
    if not bad:
        return Finding(what, found)
    kinds = ", ".join(f"{count} {kind}" for kind, count in bad.most_common())
    many = bad.total() > MOST_BAD * read
    return Finding(what, f"{found}; damaged of {read}: {kinds}", WRONG if many else DOUBTFUL, "mend these records")


def _read(source: Source, seconds: float) -> tuple[int, int, collections.Counter[str], float]:
    """Returns (records read, their bytes, kind -> damaged ones, seconds)."""
    order = np.random.default_rng(0).permutation(len(source))
    bad: collections.Counter[str] = collections.Counter()
    count = size = 0
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        while count < len(order) and (count == 0 or time.monotonic() - begin < seconds):
            turn = order[count : count + _TURN]
            for found in pool.map(lambda index: _one(source, int(index)), turn):
                size += found if isinstance(found, int) else 0
                bad.update([found] if isinstance(found, str) else [])
            count += len(turn)
    return count, size, bad, max(time.monotonic() - begin, 1e-9)


def _one(source: Source, index: int) -> int | str:
    """Returns the bytes of a record, or the kind of its damage."""
    try:
        return sum(_bytes(value) for value in source.read(index).values())
    except BadRecord as error:
        return error.kind
    except OSError as error:
        raise unreadable(source, index, error) from error


def _bytes(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return len(value) if isinstance(value, str | bytes) else 8
