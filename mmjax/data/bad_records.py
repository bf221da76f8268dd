"""Counting, naming and limiting the records that cannot be used."""

from __future__ import annotations

import collections
import json
import math
import os
import threading
from pathlib import Path

import numpy as np

from mmjax.core.errors import UserError, listed
from mmjax.core.secrets import masked, masked_json
from mmjax.data.source import BadRecord, Source


class BadRecords:
    """What a run knows of its source's bad records; thread-safe.

    Each distinct bad record is counted once and written once to the log, a JSONL file with `record`, `kind`, `label`,
    `detail` and `source`. A log that exists is read first, so counts go on after a restart; a record that reads well
    again (the file was repaired) leaves the counts. Reading decides whether a record is skipped, never the log.

    The run stops once the share is certain to be above `max_share`: when there are more bad records than that share
    of the whole source, or, earlier, when more than 20 were found and their number is six standard deviations above
    what that share would have given among the records read since the start of this process.
    """

    def __init__(self, source: Source, max_share: float, log: str | os.PathLike[str] | None = None):
        if not 0 <= max_share <= 1:
            raise UserError(f"max_bad_share={max_share} must be a share between 0 and 1 (0.01 is 1 %).")
        self.source = source
        self.max_share = max_share
        self.log = None if log is None else Path(log)
        self._lock = threading.Lock()
        self._seen = np.zeros((len(source) + 7) // 8, np.uint8)  # one bit a record
        self._num_seen = 0
        self._bad: dict[int, str] = {}  # found by this process
        self._logged = self._read_log()

    def _read_log(self) -> dict[int, str]:
        """Returns record -> kind of the lines of the log that belong to this source."""
        if self.log is None or not self.log.exists():
            return {}
        found: dict[int, str] = {}
        text = self.log.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):  # a process was killed as it wrote
            with self.log.open("a", encoding="utf-8") as file:
                file.write("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # what that process left
                continue
            if entry.get("source") == masked(self.source.name) and 0 <= entry.get("record", -1) < len(self.source):
                found[entry["record"]] = entry["kind"]
        return found

    def is_bad(self, record: int) -> bool:
        """Says whether this process found record to be bad."""
        return record in self._bad

    def good(self, record: int) -> None:
        """Notes that record was read and is good."""
        with self._lock:
            self._see(record)
            self._logged.pop(record, None)

    def add(self, record: int, error: BadRecord) -> None:
        """Notes that record is bad.

        Raises:
          UserError: the share of bad records is above max_share.
        """
        with self._lock:
            self._see(record)
            if record in self._bad:
                return
            self._bad[record] = error.kind
            if record not in self._logged:
                self._logged[record] = error.kind
                self._write(record, error)
            self._check()

    def _see(self, record: int) -> None:
        byte, bit = record >> 3, 1 << (record & 7)
        if not self._seen[byte] & bit:
            self._seen[byte] |= bit
            self._num_seen += 1

    def _write(self, record: int, error: BadRecord) -> None:
        if self.log is None:
            return
        entry = {
            "record": record,
            "kind": error.kind,
            "label": self.source.label(record),
            "detail": error.detail,
            "source": self.source.name,
        }
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(masked_json(entry), ensure_ascii=True) + "\n")

    def _check(self) -> None:
        bad, expected = len(self._bad), self.max_share * self._num_seen
        too_many = bad > self.max_share * len(self.source)
        too_dense = bad > 20 and bad > expected + 6 * math.sqrt(expected)
        if self.max_share < 1 and (too_many or too_dense):
            raise UserError(self.sentence())

    def sentence(self) -> str:
        """Returns the sentence that says why the run stops."""
        kinds = listed(f"{count} {kind}" for kind, count in self.counts().items())
        where = "" if self.log is None else f" They are named in {self.log}."
        first = next(iter(self._bad))
        return (
            f"{self.source.name}: {len(self._bad)} of the {self._num_seen} records read so far are bad, of "
            f"{len(self.source)} in all, which is more than max_bad_share={self.max_share:.2%} allows ({kinds}; the "
            f"first is {self.source.label(first)}).{where} Repair them, or raise max_bad_share."
        )

    def counts(self) -> dict[str, int]:
        """Returns kind -> number of distinct bad records, those of earlier runs of the same log included."""
        return dict(sorted(collections.Counter(list(self._logged.values())).items()))

    @property
    def share(self) -> float:
        """Distinct bad records over distinct records read, both by this process; 0 before the first."""
        return len(self._bad) / max(self._num_seen, 1)
