"""A source over another one, which says of itself only what is different."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmjax.core.errors import UserError
from mmjax.data.mixture import Mixture
from mmjax.data.source import Source


@dataclasses.dataclass(eq=False)
class Wrapped:
    """What it does not define itself (columns, classes, groups, labels, a credit) is the other source's.

    Attributes:
      source: the other one; no Mixture, whose weights and parts would be lost: its parts are wrapped instead.

    Raises:
      UserError: the source is a Mixture.
    """

    source: Source

    def __post_init__(self) -> None:
        if isinstance(self.source, Mixture):
            kind = type(self).__name__
            raise UserError(
                f"{kind}: {self.source.name} is a Mixture, whose weights and parts would be lost; make a Mixture of "
                f"wrapped parts instead: Mixture([{kind}(part), ...], weights)."
            )

    def __len__(self) -> int:
        return len(self.source)

    def __getattr__(self, name: str) -> Any:
        if name == "source" or name.startswith("__"):  # asked for before there is one, by copies
            raise AttributeError(name)
        return getattr(self.source, name)
