"""Any TensorFlow Datasets data set in ArrayRecord format, read at random with its pictures still encoded."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import file_adapters

import mmjax.data.tf  # noqa: F401 (before TFDS imports TensorFlow by itself, on whatever accelerator there is)
from mmjax.core.errors import UserError, listed, nearest
from mmjax.data.source import BadRecord, Record
from mmjax.data.sources import columns as columns_lib
from mmjax.data.sources.files import check_unchanged, signature
from mmjax.data.sources.remote import is_remote

Feature = tfds.features.FeatureConnector
_FORMAT = file_adapters.FileFormat.ARRAY_RECORD


@dataclasses.dataclass(eq=False)
class TfdsSource:
    """One split of a TFDS data set.

    An Image feature becomes its encoded bytes, Text a list[str] (a sequence of Text: all of them), a ClassLabel a
    list[str] with its class's name (with spaces for underscores in the column 'caption' or 'caption_<anything>'; empty
    where the data set says that there is none), a Tensor numpy of its shape, a scalar of strings bytes.

    Attributes:
      dataset: TFDS name ('coco_captions', 'coco_captions/2014:1.1.0'), the folder of a prepared version, or a builder.
      split: any TFDS split: 'train', 'validation', 'train[:80%]', 'train+test'.
      data_dir: where TFDS keeps its data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets.
      columns: column -> path of the feature ('captions/text'); None guesses 'image', 'caption' and 'label' from the
        types.
      classes: (once made) column -> names of its classes, in order.

    Raises:
      UserError: no such data set, split or feature; it is not prepared, or prepared as TFRecord only.
    """

    how: ClassVar[str] = (
        "A TFDS data set has an Image feature and a Text feature named 'caption', 'text', 'title', ...; others can be "
        "given: --set \"data.source.columns={'image': ..., 'caption': ...}\"."
    )

    dataset: str | tfds.core.DatasetBuilder
    split: str = "train"
    data_dir: str | None = None
    columns: Mapping[str, str] | None = None

    def __post_init__(self):
        builder = _builder(self.dataset, self.data_dir) if isinstance(self.dataset, str) else self.dataset
        builder = _readable(builder)
        self.name = f"tfds:{builder.info.full_name}:{self.split}"
        self._features = dict(_flat(builder.info.features))
        self.found = ", ".join(f"{path} ({type(f).__name__})" for path, f in self._features.items())
        given = self.columns
        self.mapping = (
            _guessed(self._features) if given is None else columns_lib.chosen(given, self._features, self.name)
        )
        self.columns = tuple(self.mapping)
        labels = {column: self._features[path] for column, path in self.mapping.items()}
        self.classes = {c: f.names for c, f in labels.items() if _is_class(f)}
        self._records = _opened(builder, self.split)
        parts = builder.info.splits[self.split].file_instructions
        self._files = [os.fspath(part.filename) for part in parts]
        self._ends = list(itertools.accumulate(part.take for part in parts))
        self._signatures = {path: signature(path) for path in self._files if not is_remote(path)}

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Record:
        """Returns record index; thread-safe. Only of the very file that was there when the source was made."""
        try:
            example = self._records[index]
        except (DecodeError, ValueError, RuntimeError) as e:
            self._check_file(index)
            raise BadRecord("unreadable_record", f"{self.label(index)}: {e}") from e
        self._check_file(index)  # after the read: a file that is cut gives empty records without an error
        return {column: self._value(example, column, index) for column in self.mapping}

    def _check_file(self, index: int) -> None:
        path = self._files[bisect.bisect_right(self._ends, index)]
        if not is_remote(path):  # one look a record is nothing here, and a request there
            check_unchanged(path, self._signatures[path], signature(path))

    def label(self, index: int) -> str:
        """Returns 'tfds:coco_captions/2014/1.1.0:train[17]'."""
        return f"{self.name}[{index}]"

    def _value(self, example: Any, column: str, index: int) -> Any:
        """Returns one column of a tf.train.Example, whose keys are the features' paths."""
        path, where = self.mapping[column], self.label(index)
        feature, values = self._features[path], example.features.feature[path]
        if isinstance(feature, tfds.features.Image):
            return columns_lib.image(b"".join(values.bytes_list.value[:1]), where)
        if _is_class(feature):
            names = [feature.int2str(i) for i in values.int64_list.value if i >= 0]  # -1 is no class
            return [name.replace("_", " ") for name in names] if column.startswith("caption") else names
        if isinstance(feature, tfds.features.Text):
            return columns_lib.captions(list(values.bytes_list.value), where)
        if values.WhichOneof("kind") == "bytes_list":
            found = list(values.bytes_list.value)
            return found[0] if feature.shape == () and len(found) == 1 else found
        numbers = np.asarray(values.int64_list.value or values.float_list.value, feature.np_dtype)
        shape = [-1 if size is None else size for size in feature.shape]  # of one, where the feature is a sequence
        return numbers.reshape(shape) if numbers.size == np.prod(shape) or -1 in shape else numbers


def _flat(feature: Feature, path: str = "") -> list[tuple[str, Feature]]:
    """Returns (path, leaf feature) as the keys of a tf.train.Example; a sequence counts as what it holds."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return [leaf for key in feature for leaf in _flat(feature[key], f"{path}/{key}" if path else key)]
    if isinstance(feature, tfds.features.Sequence):
        return _flat(feature.feature, path)
    return [(path, feature)]


def _is_class(feature: Feature) -> bool:
    """Says whether a feature is a class whose names are known; without names they are the numbers in words."""
    return isinstance(feature, tfds.features.ClassLabel) and feature.num_classes is not None


def _guessed(features: Mapping[str, Feature]) -> dict[str, str]:
    """Returns the features of 'image' (by type), 'caption' (by type, then name) and 'label' (by name, then type)."""
    images = [path for path, f in features.items() if isinstance(f, tfds.features.Image)]
    texts = [path for path, f in features.items() if type(f) is tfds.features.Text]
    found = {"image": columns_lib.guess(images, "image") or next(iter(images), None)}
    found["caption"] = columns_lib.guess(texts, "caption")
    labels = [path for path, feature in features.items() if _is_class(feature)]
    found["label"] = "label" if "label" in features else labels[0] if len(labels) == 1 else None
    return {column: path for column, path in found.items() if path is not None}


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a name or of the folder of a prepared version."""
    if (epath.Path(name) / "dataset_info.json").exists():
        return tfds.builder_from_directory(name)
    try:
        return tfds.builder(name, data_dir=data_dir or os.environ.get("TFDS_DATA_DIR"))
    except tfds.core.DatasetNotFoundError:
        base = name.split("/")[0].split(":")[0]
        hint = nearest(base, tfds.list_builders())
        raise UserError(
            f"TFDS has no data set {name!r}, neither in its catalogue nor prepared in {_root(data_dir)}.{hint}"
        ) from None
    except (ValueError, AssertionError) as e:  # an unknown config or version
        raise UserError(f"TFDS cannot open {name!r}: {e}") from e


def _readable(builder: tfds.core.DatasetBuilder) -> tfds.core.DatasetBuilder:
    """Returns a builder that reads at random; raises where there is none, with the command that makes it."""
    full = builder.info.full_name
    if not builder.data_path.exists():
        root = os.fspath(builder.data_path).removesuffix(full)
        raise UserError(
            f"The TFDS data set {full!r} is not prepared: {builder.data_path} does not exist. Prepare it with: python "
            f'-c "import tensorflow_datasets as tfds; tfds.builder({full.replace("/" + str(builder.version), "")!r}, '
            f"data_dir={root.rstrip('/')!r}, file_format='array_record').download_and_prepare()\""
        )
    if builder.info.file_format != _FORMAT:  # a builder from code does not know of formats that were added later
        builder = tfds.builder_from_directory(builder.data_path)
    formats = {f.value for f in builder.info.available_file_formats()}
    if _FORMAT.value not in formats:
        raise UserError(
            f"{builder.data_path} holds {full!r} as {listed(sorted(formats))}, which cannot be read at random. Add an "
            f"ArrayRecord copy, once, with: python -m mmjax.data.sources.to_array_record {builder.data_path}"
        )
    return builder


def _opened(builder: tfds.core.DatasetBuilder, split: str) -> Any:
    """Returns the split as a sequence of tf.train.Example."""
    method = tfds.decode.DeserializeMethod.DESERIALIZE_NO_DECODE
    try:
        return builder.as_data_source(split, deserialize_method=method, file_format=_FORMAT)
    except (ValueError, KeyError, AssertionError) as e:
        splits = list(builder.info.splits)
        hint = nearest(split.split("[")[0], splits)
        raise UserError(
            f"{builder.info.full_name!r} has no split {split!r}: it has {listed(splits)}.{hint} ({e})"
        ) from e


def _root(data_dir: str | None) -> str:
    return data_dir or os.environ.get("TFDS_DATA_DIR") or str(tfds.core.constants.DATA_DIR)
