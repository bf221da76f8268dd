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

_PER_BYTE, _FREE = 64, 2**24
"""Samples that a header may claim: for each byte of its signals (compressed, gaps between segments), and besides."""


@dataclasses.dataclass(eq=False)
class WfdbSource:
    """The records of a folder and the folders below it, or those that a RECORDS file lists.

    Without a RECORDS file, what another header names as a segment is read as part of that record alone.

    Columns: `column` float32 [T, C] in the physical units of the header, NaN where the record says that a sample is
    invalid; 'sampling_rate' in Hz; 'channels' and 'units', a name for each of the C; 'comments' of the header, a list;
    and, with `comment` or `annotator`, 'label', a list: empty where the record has none.

    Attributes:
      path: the folder (its own RECORDS file counts where it has one), or a RECORDS file; local.
      column: what the signals are called.
      comment: key of the header comment that holds the labels: 'Dx' for '# Dx: 426177001,164934002'.
      annotator: ending of the annotations ('atr') whose rhythm, '(AFIB', that lasts longest is the label: ['AFIB'].
      verify: whether samples must have the checksum of the header; those of records in segments are not compared.

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
            'broken_wfdb' for what else cannot be read: a header that makes no sense or claims far more than its files
            hold, signals that end too soon.
        """
        path = self._names[index]
        header = _header(path)
        segmented = hasattr(header, "seg_name")  # each segment in units of its own: none are common to their samples
        found = _read(path, lambda wfdb: wfdb.rdrecord(path, physical=segmented))
        if self.verify and not segmented:
            _verify(found, header, path)
        # [T, C] float64, NaN where a sample is invalid.
        signals = found.p_signal if segmented else _read(path, lambda _: found.dac())
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
            there = [os.path.join(path, found[:-4]) for found in files.walk(path) if found.endswith(".hea")]
            segments = {segment for name in there for segment in _segments(name)}
            return [name for name in there if os.path.normpath(name) not in segments]
        path = listing
    if not os.path.isfile(path):
        raise UserError(f"{path!r} is neither a folder nor a RECORDS file.{files.siblings(path)}")
    with open(path, encoding="utf-8", errors="replace") as file:
        return [os.path.join(os.path.dirname(path), line.strip()) for line in file if line.strip()]


def _segments(path: str) -> list[str]:
    """Returns the paths of the records that a header names as its segments; none where it is damaged."""
    try:
        with open(f"{path}.hea", encoding="latin-1") as file:
            lines = (line.split() for line in file if line.strip() and not line.lstrip().startswith("#"))
            if "/" not in next(lines, [""])[0]:  # 'NAME/SEGMENTS'
                return []
            found = [os.path.normpath(os.path.join(os.path.dirname(path), line[0])) for line in lines]
    except OSError:
        return []
    return [segment for segment in found if segment != os.path.normpath(path)]


def _header(path: str) -> Any:
    """Returns the header of a record, once its files can hold what it and its segments' headers claim.

    Raises:
      BadRecord: a file is not there, a header makes no sense, or they claim more than `_PER_BYTE` samples a byte of the
        signals and `_FREE` besides: to read such a record could take all memory.
    """
    header = _read(path, lambda wfdb: wfdb.rdheader(path))
    folder = os.path.dirname(path)
    names = [os.path.join(folder, name) for name in getattr(header, "seg_name", ()) if name != "~"]
    parts = _read(path, lambda wfdb: [wfdb.rdheader(name) for name in names]) or [header]
    held = _read(path, lambda _: sum(map(_held, names or [path], parts)))
    claimed = _read(path, lambda _: max(_claimed(header), sum(map(_claimed, parts))))
    if claimed > _FREE + _PER_BYTE * held:
        raise BadRecord(
            "broken_wfdb", f"{path}: its header claims {claimed:,} samples, but its signals are {held:,} bytes."
        )
    return header


def _held(path: str, header: Any) -> int:
    """Returns the bytes of the files of a header's signals."""
    names = {name for name in header.file_name or () if name != "~"}
    return sum(os.path.getsize(os.path.join(os.path.dirname(path), name)) for name in names)


def _claimed(header: Any) -> int:
    """Returns how many samples a header claims, or signals or segments where it gives no length."""
    length, frames = header.sig_len or 0, zip(*_frames(header), strict=True)
    signals = sum((length + (skew or 0)) * (samples or 1) for skew, samples in frames)
    return max(signals, (header.n_sig or 0) * (length or 1), getattr(header, "n_seg", 0) or 0)


def _frames(header: Any) -> tuple[list[int | None], list[int | None]]:
    """Returns the skew and the samples a frame of every signal; of segments none."""
    return getattr(header, "skew", None) or [], getattr(header, "samps_per_frame", None) or []


def _read(path: str, call: Any) -> Any:
    """Returns call(wfdb), or says what is wrong with the record."""
    try:
        return call(_package())
    except FileNotFoundError as error:
        raise BadRecord("missing_file", f"{path}: there is no file {error.filename}.") from error
    except OSError:
        raise
    except Exception as error:  # on a damaged file wfdb fails in any way: TypeError, IndexError, its own, ...
        raise BadRecord("broken_wfdb", f"{path}: {type(error).__name__}: {error}") from error


def _verify(found: Any, header: Any, path: str) -> None:
    """Raises BadRecord where the samples do not have the checksums that the header gives (16 bits each).

    They are of the samples as written, so those of several a frame, or skewed, are read once more as they are.
    """
    skews, samples = _frames(header)
    as_written = any(skews) or any(count not in (None, 1) for count in samples)
    if as_written:
        found = _read(path, lambda wfdb: wfdb.rdrecord(path, physical=False, smooth_frames=False, ignore_skew=True))
    if found.checksum is None or (found.e_d_signal if as_written else found.d_signal) is None:
        return
    for name, said, own in zip(found.sig_name or (), found.checksum, found.calc_checksum(as_written), strict=False):
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
