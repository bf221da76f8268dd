"""WFDB records (PhysioNet: PTB-XL, MIT-BIH, ...): a header .hea beside its signals; every damage is a bad record."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.optional import optional
from mmjax.data.source import BadRecord, Record
from mmjax.data.sources import files


@dataclasses.dataclass(eq=False)
class WfdbSource:
    """The records of a folder and the folders below it, or those that a RECORDS file lists.

    Columns: `column` float32 [T, C] in the physical units of the header, NaN where the record says that a sample is
    invalid; 'sampling_rate' in Hz; 'channels' and 'units', a name for each of the C; 'comments' of the header, a list;
    and, with `comment` or `annotator`, 'label', a list: empty where the record has none.

    Attributes:
      path: the folder (its own RECORDS file counts where it has one), or a RECORDS file; local.
      column: what the signals are called.
      comment: key of the header comment that holds the labels: 'Dx' for '# Dx: 426177001,164934002'.
      annotator: ending of the annotations ('atr') whose rhythm, '(AFIB', that lasts longest is the label: ['AFIB'].
      verify: whether samples must have the checksum of the header.

    Raises:
      UserError: there is nothing, or the package `wfdb` is not installed.

    References:
      https://physionet.org/physiotools/wag/header-5.htm
    """

    how: ClassVar[str] = "WFDB records are files NAME.hea with their signals (NAME.dat), as on PhysioNet."

    path: str
    column: str = "ecg"
    comment: str | None = None
    annotator: str | None = None
    verify: bool = True

    def __post_init__(self):
        _package()
        self.name = self.path
        self._names = _names(self.path)
        if not self._names:
            raise UserError(f"{self.path}: there is no WFDB header (.hea) in this folder. {self.how}")
        self.mapping = {self.column: "signals", "sampling_rate": "header", "channels": "header", "units": "header"}
        self.mapping["comments"] = "header"
        if self.comment or self.annotator:
            self.mapping["label"] = f"comment {self.comment!r}" if self.comment else f"rhythms of .{self.annotator}"
        self.columns = tuple(self.mapping)
        self.found = f"{len(self._names):,} records"

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe.

        Raises:
          BadRecord: 'missing_file' where the header, its signals or annotations are not there; 'wrong_checksum';
            'broken_wfdb' for what else cannot be read: a header that makes no sense, signals that end too soon.
        """
        path = self._names[index]
        found = _read(path, lambda wfdb: wfdb.rdrecord(path, physical=False))
        if self.verify:
            _verify(found, path)
        signals = _read(path, lambda _: found.dac())  # [T, C] float64, NaN where invalid
        if signals is None or signals.shape != (found.sig_len, len(found.sig_name or ())):
            raise BadRecord("broken_wfdb", f"{path}: its signals are not of the length and number of its header.")
        record = {self.column: signals.astype(np.float32), "sampling_rate": float(found.fs)}
        record |= {"channels": list(found.sig_name), "units": list(found.units), "comments": list(found.comments)}
        if self.comment:
            record["label"] = _commented(found.comments, self.comment)
        elif self.annotator:
            notes = _read(path, lambda wfdb: wfdb.rdann(path, self.annotator))
            record["label"] = _longest_rhythm(notes.sample, notes.aux_note, found.sig_len)
        return record

    def label(self, index: int) -> str:
        """Returns the path of the record, without an ending."""
        return self._names[index]


def _package() -> ModuleType:
    return optional("wfdb", "WFDB records are read through wfdb", "data")


def _names(path: str) -> list[str]:
    """Returns the paths of the records, without endings."""
    if os.path.isdir(path):
        listing = os.path.join(path, "RECORDS")
        if not os.path.isfile(listing):
            return [os.path.join(path, found[:-4]) for found in files.walk(path) if found.endswith(".hea")]
        path = listing
    if not os.path.isfile(path):
        raise UserError(f"{path!r} is neither a folder nor a RECORDS file.{files.siblings(path)}")
    with open(path, encoding="utf-8", errors="replace") as file:
        return [os.path.join(os.path.dirname(path), line.strip()) for line in file if line.strip()]


def _read(path: str, call: Any) -> Any:
    """Returns call(wfdb), or says what is wrong with the record."""
    try:
        return call(_package())
    except FileNotFoundError as error:
        raise BadRecord("missing_file", f"{path}: there is no file {error.filename}.") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # on a damaged file wfdb fails in any way: TypeError, IndexError, its own, ...
        raise BadRecord("broken_wfdb", f"{path}: {type(error).__name__}: {error}") from error


def _verify(found: Any, path: str) -> None:
    """Raises BadRecord where the samples do not have the checksums that the header gives (16 bits each)."""
    if found.checksum is None or found.d_signal is None:
        return
    for name, said, own in zip(found.sig_name or (), found.checksum, found.calc_checksum(), strict=False):
        if said is not None and (said - own) % 65536:
            raise BadRecord("wrong_checksum", f"{path}: the samples of {name} are not those that were written.")


def _commented(comments: list[str], key: str) -> list[str]:
    """Returns the values of 'key: value, value' among the comments."""
    values = [line.partition(":")[2] for line in comments if line.partition(":")[0].strip().lower() == key.lower()]
    return [value.strip() for value in ",".join(values).split(",") if value.strip()]


def _longest_rhythm(samples: np.ndarray, notes: list[str], end: int) -> list[str]:
    """Returns the rhythm that lasts longest, a list of one; empty where none is annotated."""
    changes = [(int(s), n.strip("\0 ")[1:]) for s, n in zip(samples, notes, strict=True) if n.startswith("(")]
    lasted: collections.Counter[str] = collections.Counter()
    for (start, rhythm), (stop, _) in itertools.pairwise([*changes, (end, "")]):
        lasted[rhythm] += stop - start
    return [rhythm for rhythm, _ in lasted.most_common(1)]
