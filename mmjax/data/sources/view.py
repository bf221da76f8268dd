"""A view of another source: some of its columns, under names of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.source import Record
from mmjax.data.sources.wrapped import Wrapped


@dataclasses.dataclass(eq=False)
class View(Wrapped):
    """The records of another source with these columns alone, such as pictures without their captions.

    In a `Mixture` a modality whose column a part lacks is missing from that part's examples.

    Attributes:
      source: whose records they are; see `Wrapped`.
      columns_of: name of a column here -> its name there.

    Raises:
      UserError: a column that the source lacks, or none at all.
    """

    columns_of: Mapping[str, str]

    def __post_init__(self):
        super().__post_init__()
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

    @property
    def mapping(self) -> Mapping[str, str]:
        """Name here -> the name there."""
        return self.columns_of

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Name here -> the classes that the source declares."""
        declared = getattr(self.source, "classes", {})
        return {name: declared[column] for name, column in self.columns_of.items() if column in declared}

    def read(self, index: int) -> Record:
        """Returns these columns of record index; one that the record itself lacks is left out."""
        record = self.source.read(index)
        return {name: record[column] for name, column in self.columns_of.items() if column in record}
