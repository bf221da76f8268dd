"""`python -m mmjax.data.sources.to_array_record DIR`: adds an ArrayRecord copy of a prepared TFDS data set's shards.

TFDS has `tfds convert_format` for this, but every `tfds` command of 4.9.10 imports Apache Beam, which this library
does without (its pins would downgrade protobuf). The result is the same: new shards beside the old ones, and
'array_record' among the formats in dataset_info.json, written last.
"""

from __future__ import annotations

import argparse
import sys

import rich.progress
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import file_adapters

import mmjax.data.tf  # noqa: F401 (before TFDS imports TensorFlow by itself, on whatever accelerator there is)
from mmjax.core.errors import UserError
from mmjax.core.files import whole
from mmjax.core.permissions import safe_permissions

_OUT = file_adapters.FileFormat.ARRAY_RECORD


def convert(folder: str) -> int:
    """Adds an ArrayRecord copy of every shard in the folder of one prepared version; finished shards are kept.

    Returns:
      How many shards were written.

    Raises:
      UserError: the folder holds no prepared TFDS data set.
    """
    if not (epath.Path(folder) / "dataset_info.json").exists():
        raise UserError(f"{folder!r} is not the folder of a prepared TFDS version: it has no dataset_info.json.")
    info = tfds.builder_from_directory(folder).info
    if _OUT in info.available_file_formats():
        return 0
    pairs = [pair for split in info.splits.values() for pair in _shards(split)]
    todo = [(old, new) for old, new in pairs if not new.exists()]
    adapter = file_adapters.ADAPTER_FOR_FORMAT[info.file_format]
    with safe_permissions():
        for old, new in rich.progress.track(todo, "Converting shards", disable=not sys.stdout.isatty()):
            examples = enumerate(adapter.make_tf_data(old).as_numpy_iterator())
            with whole(new) as part:
                file_adapters.ADAPTER_FOR_FORMAT[_OUT].write_examples(part, examples)
        info.add_alternative_file_format(_OUT)
        info.write_dataset_info_json(folder)
    return len(todo)


def _shards(split: tfds.core.SplitInfo) -> list[tuple[epath.Path, epath.Path]]:
    """Returns (shard, its ArrayRecord copy) of a split."""
    old = split.filename_template
    new = old.replace(filetype_suffix=_OUT.file_suffix)
    count = split.num_shards
    return [tuple(t.sharded_filepath(shard_index=i, num_shards=count) for t in (old, new)) for i in range(count)]


def main() -> None:
    """Converts the folder given on the command line."""
    parser = argparse.ArgumentParser(description="Add an ArrayRecord copy to a prepared TFDS data set.")
    parser.add_argument("folder", help="the folder of one version, e.g. ~/tensorflow_datasets/mnist/3.0.1")
    try:
        print(f"{convert(parser.parse_args().folder)} shards written.")
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
