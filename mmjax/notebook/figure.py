"""A matplotlib figure that a notebook shows by itself; the one file here that imports matplotlib at its top."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A Figure that is the last value of a notebook cell appears as a picture, with pyplot or without."""

    def _repr_png_(self) -> bytes:
        """The PNG that IPython asks for."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()
