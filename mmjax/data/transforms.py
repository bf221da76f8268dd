"""The transforms by their public names, and building them again from the JSON in a checkpoint.

`spec()` writes a transform as JSON into the checkpoint; `transforms_from_spec` reads it, so that evaluation and
notebooks preprocess exactly as training did.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.core.errors import UserError, nearest
from mmjax.data.audio import AudioTransform
from mmjax.data.image import ImageTransform
from mmjax.data.pointcloud import PointCloudTransform
from mmjax.data.text import TextTransform
from mmjax.data.timeseries import SeriesTransform
from mmjax.data.transform import Transform
from mmjax.data.video import VideoTransform

__all__ = [
    "AudioTransform",
    "ImageTransform",
    "PointCloudTransform",
    "SeriesTransform",
    "TextTransform",
    "Transform",
    "VideoTransform",
    "transform_from_spec",
    "transforms_from_spec",
]


def transform_from_spec(spec: Mapping[str, Any], allow: Sequence[str] = ("mmjax.",)) -> Transform:
    """Builds the transform that wrote spec.

    Args:
      spec: what `spec()` returned.
      allow: import prefixes that may be built; a spec can never name anything else.

    Raises:
      UserError: the type is not allowed, not a transform, or a setting is unknown.
    """
    path = str(spec.get("type"))
    if not path.startswith(tuple(allow)):
        raise UserError(f"preprocessing spec: the type {path!r} is not among the allowed imports {list(allow)}.")
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise UserError(f"preprocessing spec: there is no transform {path!r} in this version of mmjax.") from None
    if not (dataclasses.is_dataclass(cls) and isinstance(cls, type) and hasattr(cls, "collate")):
        raise UserError(f"preprocessing spec: {path!r} is not a transform.")
    fields = [field.name for field in dataclasses.fields(cls)]
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in spec.items() if key != "type"}
    for key in settings:
        if key not in fields:
            raise UserError(f"preprocessing spec: {path} has no setting {key!r}.{nearest(key, fields)}")
    return cls(**settings)


def transforms_from_spec(
    spec: Mapping[str, Mapping[str, Any]], allow: Sequence[str] = ("mmjax.",)
) -> dict[str, Transform]:
    """Builds modality -> transform from what `Pipeline.spec()` returned."""
    return {name: transform_from_spec(value, allow) for name, value in spec.items()}
