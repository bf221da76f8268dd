"""mmjax: train models over several modalities in JAX."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imports `load` when it is first asked for, so that `import mmjax` stays light."""
    if name == "load":
        from mmjax.notebook.loaded import load

        return load
    raise AttributeError(f"module 'mmjax' has no attribute {name!r}")
