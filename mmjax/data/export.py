"""`python -m mmjax.data.export DATA OUT`: ArrayRecord shards of the records of any source, by Apache Beam.

    python -m mmjax.data.export 'gs://bucket/{00000..41407}.tar' gs://bucket/set/1.0.0 --num-shards 1024 \
        --runner DataflowRunner --project P --region R --temp_location gs://bucket/tmp
    python -m mmjax.data.export captions.csv out/1.0.0 --num-shards 8 --processes 4

DATA is what --data of training is. All other options are Beam's own, of whatever runner (it needs the extra 'beam',
which holds protobuf below 7); with --processes the shards are written by processes of this machine and without Beam.
OUT becomes the folder of a TFDS version, which `TfdsSource` and --data tfds:OUT read.

`write_shard` does the work: a pure function of (data, shard), which a runner may call anywhere, and again.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import functools
import importlib
import io
import logging
import multiprocessing
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer, file_adapters

import mmjax.data.tf  # noqa: F401 (before TFDS imports TensorFlow by itself, on whatever accelerator there is)
from mmjax.core.errors import UserError, at_least
from mmjax.core.files import whole
from mmjax.core.optional import optional
from mmjax.core.permissions import safe_permissions
from mmjax.core.secrets import masked
from mmjax.data.source import BadRecord, Record, Source, unreadable
from mmjax.data.spec import FORMS, open_spec

_log = logging.getLogger(__name__)
_SPLIT = "train"
_LOOK = 100


@dataclasses.dataclass(frozen=True)
class Written:
    """What one shard holds.

    Attributes:
      shard: its number.
      records: that were written.
      size: of their bytes.
      bad: kind -> records that were left out because they are damaged.
    """

    shard: int
    records: int
    size: int
    bad: Mapping[str, int]


def features_of(source: Source) -> tfds.features.FeaturesDict:
    """Returns the TFDS features of a source, from the types of its first good record.

    'image' becomes an Image that stays encoded, a text or a list of texts a sequence of Text, other bytes a scalar of
    bytes, a number a scalar int64 or float32.

    Raises:
      UserError: a column holds something else, or none of the first records is good.
    """
    for index in range(min(len(source), _LOOK)):
        try:
            record = _read(source, index)
        except BadRecord:  # counted by the shard that it belongs to
            continue
        return tfds.features.FeaturesDict({name: _feature(name, record[name], source) for name in source.columns})
    raise UserError(f"{source.name}: none of the first {min(len(source), _LOOK)} records can be read.")


def _feature(name: str, value: Any, source: Source) -> tfds.features.FeatureConnector:
    if isinstance(value, bytes):
        return tfds.features.Image() if name == "image" else tfds.features.Tensor(shape=(), dtype=np.bytes_)
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        return tfds.features.Sequence(tfds.features.Text())
    if isinstance(value, bool | int | float | np.number):
        return tfds.features.Scalar(np.float32 if isinstance(value, float | np.floating) else np.int64)
    raise UserError(
        f"{source.name}: column {name!r} holds {type(value).__name__}; expected encoded bytes, text, a list of texts "
        "or a number."
    )


def write_shard(shard: int, *, data: str, out: str, num_shards: int) -> Written:
    """Writes one of num_shards equal runs of the records of data, in order; the file appears whole or not at all.

    Raises:
      UserError: data cannot be opened, a record cannot be stored, or its storage fails.
    """
    source, features = _opened(data)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    start, stop = (len(source) * number // num_shards for number in (shard, shard + 1))
    bad: collections.Counter[str] = collections.Counter()
    count = size = 0

    def examples():
        nonlocal count, size
        for index in range(start, stop):
            try:
                record = _read(source, index)
            except BadRecord as error:
                bad[error.kind] += 1
                continue
            example = serializer.serialize_example(_encoded(record, features, source.label(index)))
            count, size = count + 1, size + len(example)
            yield index, example

    path = _template(out).sharded_filepath(shard_index=shard, num_shards=num_shards)
    with safe_permissions(), whole(path) as part:
        file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD].write_examples(part, examples())
    return Written(shard, count, size, dict(bad))


def _read(source: Source, index: int) -> Record:
    try:
        return source.read(index)
    except OSError as error:
        raise unreadable(source, index, error) from error


def _encoded(record: Record, features: tfds.features.FeaturesDict, where: str) -> dict[str, Any]:
    """Returns a record as TFDS wants it before it is serialised."""
    values = {}
    for name, feature in features.items():
        value = record[name]
        if isinstance(feature, tfds.features.Image):
            value = io.BytesIO(value)
        elif isinstance(feature, tfds.features.Sequence) and isinstance(value, str):
            value = [value]
        values[name] = value
    try:
        return features.encode_example(values)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: a column has another type than in the first record: {error}") from error


@functools.lru_cache(1)
def _opened(data: str) -> tuple[Source, tfds.features.FeaturesDict]:
    """Returns the source and its features, once a process."""
    source = open_spec(data, needs=())
    return source, features_of(source)


def _template(out: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        epath.Path(out), dataset_name="records", split=_SPLIT, filetype_suffix="array_record"
    )


def finish(written: Sequence[Written], *, data: str, out: str) -> dict[str, int]:
    """Writes what makes a TFDS data set of the shards; returns kind -> bad records that were left out.

    Raises:
      UserError: no record was written.
    """
    written = sorted(written, key=lambda each: each.shard)
    bad = sum((collections.Counter(each.bad) for each in written), collections.Counter())
    if bad:
        _log.warning("%s: %d damaged records were left out: %s.", masked(data), sum(bad.values()), dict(bad))
    if not any(each.records for each in written):
        raise UserError(f"{data}: not one record could be written; left out were {dict(bad)}.")
    lengths, size = [each.records for each in written], sum(each.size for each in written)
    with safe_permissions():
        tfds.folder_dataset.write_metadata(
            data_dir=out,
            features=_opened(data)[1],
            split_infos=[tfds.core.SplitInfo(_SPLIT, lengths, size, _template(out))],
            filename_template=_template(out),
            check_data=False,
        )
    return dict(bad)


def by_processes(write: Callable[[int], Written], num_shards: int, processes: int) -> list[Written]:
    """Returns what write gives for each shard, by processes of this machine."""
    context = multiprocessing.get_context("spawn")  # a fork would share TensorFlow's threads
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        return list(pool.map(write, range(num_shards)))


def by_beam(
    write: Callable[[int], Written], done: Callable[[list[Written]], Any], num_shards: int, argv: Sequence[str]
) -> None:
    """Runs write for each shard and done on all that it gave, in a Beam pipeline with the options argv.

    Raises:
      UserError: Beam is not installed, or write or done raised one, wherever the runner called them.
    """
    beam = optional("apache_beam", "Records are exported through Apache Beam", "beam")
    options = optional("apache_beam.options.pipeline_options", "Records are exported through Apache Beam", "beam")
    try:
        with beam.Pipeline(options=options.PipelineOptions(list(argv))) as pipeline:
            _ = (
                pipeline
                | beam.Create(range(num_shards))
                | beam.Reshuffle()
                | beam.Map(write)
                | beam.combiners.ToList()
                | beam.Map(done)
            )
    except Exception as error:  # a runner hands on what a worker raised as the text of an error of its own
        if (sentence := _of_worker(error)) is None:
            raise
        raise UserError(sentence) from error


def _of_worker(error: Exception) -> str | None:
    """Returns the sentence of a UserError in the text of a runner's error, or None where there is none."""
    found = re.findall(r"^(?:[\w.]+\.)?UserError: (.+)$", str(error), re.MULTILINE)
    if isinstance(error, UserError):
        found = [str(error)]
    return re.sub(r"(?: \[while running .*\])+$", "", found[-1]) if found else None


def export(
    data: str, out: str, num_shards: int, processes: int | None = None, beam_options: Sequence[str] = ()
) -> None:
    """Writes the records of data as the TFDS folder out; see the module.

    Args:
      data: as --data of training.
      out: folder of a version, 'set/1.0.0'; local, or of a store that every worker sees.
      num_shards: files of equally many records.
      processes: of this machine; None is Beam.
      beam_options: of the pipeline, e.g. ('--runner', 'DataflowRunner').

    Raises:
      UserError: data or out is of no use, or Beam is needed and not installed.
    """
    at_least(1, "export", num_shards=num_shards, **({} if processes is None else {"processes": processes}))
    if (epath.Path(out) / "dataset_info.json").exists():
        raise UserError(f"{out}: there is a data set already; give another folder.")
    source, _ = _opened(data)
    if num_shards > len(source):
        raise UserError(f"{data} has {len(source)} records, fewer than {num_shards} shards; ask for fewer shards.")
    with safe_permissions():
        epath.Path(out).mkdir(parents=True, exist_ok=True)
    write = functools.partial(write_shard, data=data, out=out, num_shards=num_shards)
    done = functools.partial(finish, data=data, out=out)
    if processes is None:
        by_beam(write, done, num_shards, beam_options)
    else:
        done(by_processes(write, num_shards, processes))


def main() -> None:
    """Exports what the command line says."""
    parser = argparse.ArgumentParser(
        description="Write the records of any source as ArrayRecord shards; other options are Apache Beam's."
    )
    parser.add_argument("data", help=f"what to read: {FORMS}")
    parser.add_argument("out", help="the folder of a version that is made, e.g. gs://bucket/set/1.0.0")
    parser.add_argument("--num-shards", type=int, required=True)
    parser.add_argument("--processes", type=int, help="write by processes of this machine, without Beam")
    options, beam_options = parser.parse_known_args()
    if options.processes is not None and beam_options:
        parser.error(f"--processes does without Beam, whose options {' '.join(beam_options)} would do nothing")
    try:
        export(options.data, options.out, options.num_shards, options.processes, beam_options)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    importlib.import_module("mmjax.data.export").main()  # workers find its functions by that name, not '__main__'
