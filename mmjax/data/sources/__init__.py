"""Where records come from; each source is one file and has the interface of `data.source.Source`."""

from mmjax.data.sources.tfds import TfdsSource

__all__ = ["TfdsSource"]
