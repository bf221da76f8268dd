"""What a check finds."""

from __future__ import annotations

import dataclasses

FINE, DOUBTFUL, WRONG = "fine", "doubtful", "wrong"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
      what: was looked at.
      found: what it is.
      state: FINE, DOUBTFUL (it runs, but slowly or at a risk) or WRONG (it will fail).
      advice: how to mend it; '' where it is fine.
    """

    what: str
    found: str
    state: str = FINE
    advice: str = ""
