"""A view of another source: some of its columns, under names of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.mixture import Mixture, group_of
from mmjax.data.source import Record, Source


@dataclasses.dataclass(eq=False)
class View:
    """The records of another source with these columns alone, such as pictures without their captions.

    In a `Mixture` a modality whose column a part lacks is missing from that part's examples.

    Attributes:
      source: whose records they are; no Mixture, whose weights would be lost.
      columns_of: name of a column here -> its name there.

    Raises:
      UserError: a column that the source lacks, or none at all, or the source is a Mixture.
    """

    source: Source
    columns_of: Mapping[str, str]

    def __post_init__(self):
        if isinstance(self.source, Mixture):
            raise UserError(f"View: {self.source.name} is a Mixture; make a Mixture of views of its parts instead.")
        if not self.columns_of:
            raise UserError(f"View: name at least one column of {self.source.name}.")
        for column in self.columns_of.values():
            if column not in self.source.columns:
                raise UserError(
                    f"View: {self.source.name} has no column {column!r}.{nearest(column, self.source.columns)} "
                    f"Its columns are {listed(self.source.columns)}."
                )
        self.name = f"{self.source.name} ({listed(self.columns_of)})"

    @property
    def columns(self) -> Sequence[str]:
        """The names here."""
        return tuple(self.columns_of)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Record:
        """Returns these columns of record index; one that the record itself lacks is left out."""
        record = self.source.read(index)
        return {name: record[column] for name, column in self.columns_of.items() if column in record}

    def label(self, index: int) -> str:
        """Returns the record's own label."""
        return self.source.label(index)

    def group(self, index: int) -> int:
        """Returns the record's own group."""
        return group_of(self.source, index)
