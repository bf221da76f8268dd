"""One chunk of a batch: read, prepare, replace what is bad, collate."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.core.errors import UserError
from mmjax.core.types import Batch
from mmjax.data.bad_records import BadRecords
from mmjax.data.mixture import Mixture, lacks
from mmjax.data.sampler import Draws, Sampler
from mmjax.data.source import BadRecord, unreadable
from mmjax.data.targets import Target
from mmjax.data.transform import Transform

Example = tuple[int, dict[str, Any] | None]
"""Record id (-1 for a filling row) and name -> prepared stream or target, or None where there is nothing to show."""


class _Keyed(threading.local):
    """A thread's own Philox generator, keyed anew for each example, which costs less than making one."""

    def __init__(self) -> None:
        self.generator = np.random.Generator(np.random.Philox(key=0))
        self.state = self.generator.bit_generator.state  # with nothing left over from an earlier draw

    def __call__(self, key: Sequence[int], counter: Sequence[int]) -> np.random.Generator:
        self.state["state"]["key"][:] = key
        self.state["state"]["counter"][:] = counter
        self.generator.bit_generator.state = self.state
        return self.generator


_keyed = _Keyed()


def example_rng(seed: int, position: int, name: str) -> np.random.Generator:
    """Returns the generator of one modality of one global position: Philox, keyed, so it needs no state.

    It is good until the same thread asks for the next.
    """
    return _keyed([seed % 2**64, position], [0, 0, 0, zlib.crc32(name.encode())])


class Loader:
    """Positions or records -> Batch, without state but for what is known of bad records; thread-safe."""

    def __init__(
        self,
        mixture: Mixture,
        transforms: Mapping[str, Transform],
        targets: Mapping[str, Target],
        seed: int,
        bad: BadRecords,
    ):
        self.mixture = mixture
        self.transforms = dict(transforms)
        self.targets = dict(targets)
        self.seed = seed
        self.bad = bad
        self.sampler = Sampler(mixture, seed)

    def train(self, positions: np.ndarray) -> Batch:
        """Returns the batch of global positions [B] int64, a bad record replaced by the next good of its order."""
        draws = self.sampler.draws(positions)
        first = self.sampler.records(draws)  # [B]
        return self._collate([self._example(draws, first, row, int(p)) for row, p in enumerate(positions)])

    def evaluate(self, records: np.ndarray) -> Batch:
        """Returns the batch of record ids [B] int64; a bad record, or one past the end, is a row masked out."""
        return self._collate([self._eval_example(int(record)) for record in records])

    def _example(self, draws: Draws, first: np.ndarray, row: int, position: int) -> Example:
        record, one = int(first[row]), None
        length = len(self.mixture.parts[draws.part[row]])
        for ahead in range(length):
            if ahead:
                one = one or Draws(draws.part[row : row + 1], draws.epoch[row : row + 1], draws.offset[row : row + 1])
                record = int(self.sampler.records(one, ahead)[0])
            prepared = self._prepare(record, position)
            if prepared is not None:
                return record, prepared
        raise UserError(f"{self.mixture.name}: not one of {length} records can be used. {self.bad.sentence()}")

    def _eval_example(self, record: int) -> Example:
        if record >= len(self.mixture):
            return -1, None
        return record, self._prepare(record, None)

    def _prepare(self, record: int, position: int | None) -> dict[str, Any] | None:
        """Returns name -> prepared stream or target of a record, None where it is bad; position None is evaluation."""
        if self.bad.is_bad(record):
            return None
        try:
            values = self.mixture.read(record)
            prepared = {}
            for name, transform in self.transforms.items():
                if transform.column in values or not lacks(self.mixture, record, transform.column):
                    chance = getattr(transform, "draws_with", None) or name
                    rng = None if position is None else example_rng(self.seed, position, chance)
                    prepared[name] = transform.prepare(values, rng)
            for name, target in self.targets.items():
                if target.column in values or not lacks(self.mixture, record, target.column):
                    prepared[_target(name)] = target.prepare(values)
        except BadRecord as error:
            self.bad.add(record, error)
            return None
        except OSError as error:
            raise unreadable(self.mixture, record, error) from error
        except UserError as error:
            raise UserError(f"{self.mixture.label(record)}: {error}") from error
        self.bad.good(record)
        return prepared

    def _collate(self, examples: Sequence[Example]) -> Batch:
        def rows(name: str) -> list[Any]:
            return [None if prepared is None else prepared.get(name) for _, prepared in examples]

        streams = {name: transform.collate(rows(name)) for name, transform in self.transforms.items()}
        targets = {name: target.collate(rows(_target(name))) for name, target in self.targets.items()}
        group = [-1 if record < 0 else self.mixture.group(record) for record, _ in examples]
        mask = [prepared is not None for _, prepared in examples]
        return Batch(streams, np.array(group, np.int32), np.array(mask, np.bool_), targets)


def _target(name: str) -> str:
    """Returns the name of a target beside those of the streams, which it may share."""
    return f"target {name}"
