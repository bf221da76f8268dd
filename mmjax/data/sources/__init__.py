"""Where records come from; each source is one file and has the interface of `data.source.Source`."""

from mmjax.data.sources.folder import FolderSource
from mmjax.data.sources.manifest import ManifestSource
from mmjax.data.sources.tfds import TfdsSource
from mmjax.data.sources.webdataset import WebDatasetSource

__all__ = ["FolderSource", "ManifestSource", "TfdsSource", "WebDatasetSource"]
