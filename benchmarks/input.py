"""The image-text input pipeline against its peers, in one run: images a second and processor time an image.

    python benchmarks/input.py [--peer-python /path/to/venv/bin/python] [--turns 9] [--seconds 2]

Generates 2,000 JPEGs of about 500 x 375 pixels and 60 kB with captions, writes them as tar shards, ArrayRecord, a
manifest and a folder, and makes batches of 64: decode, random resized crop to 224 (90 % to all of the area), caption
tokens (77). mmjax resizes once as big_vision does (bilinear, no antialias) and once as open_clip does (bicubic,
'antialias'); images stay uint8. Peers:

- open_clip: its WebDataset loader with two workers (Pillow, antialiased bicubic, float32 output). It needs an
  interpreter that has open_clip_torch, webdataset, torch, torchvision and pandas: --peer-python.
- big_vision: a tf.data graph with the steps and the options of its input pipeline: TFRecords, a shuffle buffer,
  'decode|inception_crop(224)|value_range(-1, 1)' (bilinear without antialias, float32), 100 calls in parallel on 48
  threads, two batches ahead. Given a head start: captions are read and not tokenized.
- tf.data: of that the pixels alone, uint8, from bytes in memory in the order of a range: what TensorFlow's own decoder
  and resize allow. For comparison, without a goal.
- tf.io.decode_jpeg and simplejpeg (libjpeg-turbo): decoding alone, bytes in memory, all cores.

The ways take turns, the first of a turn changing from turn to turn. Images a second and processor milliseconds are
medians over the turns; a ratio is the median of the ratios within one turn, so that other work on the machine
disturbs it less. The first ratio is of images a second, the one in brackets of images a processor second. Each storage
has to reach, in images a second, 4.5 times open_clip and 1.3 times big_vision without antialias, and 2.7 times
open_clip with it; whether it does is printed below the table. The goals are against webdataset 0.2.86: another version
in the peer's environment is said. --json FILE writes each goal with its figures there too.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import csv
import dataclasses
import io
import json
import os
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
import tensorflow_datasets as tfds

from mmjax.data.captions import with_trained_tokenizer
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import Source
from mmjax.data.sources import FolderSource, ManifestSource, TfdsSource, WebDatasetSource
from mmjax.data.tf import tf
from mmjax.data.transforms import ImageTransform, TextTransform

IMAGES, BATCH, SIZE, SHARDS, WORKERS = 2000, 64, 224, 4, 2
SCALE, RATIO = (0.9, 1.0), (3 / 4, 4 / 3)
QUALITY, NOISE = 85, 12.0
GOALS = {False: {"open_clip": 4.5, "big_vision": 1.3}, True: {"open_clip": 2.7}}
"""Antialias -> peer -> least ratio of images a second."""
WEBDATASET = "0.2.86"
ANTIALIAS = ", antialias"
WORDS = ["a", "the", "small", "red", "bright", "house", "dog", "river", "street", "person", "under", "two", "birds"]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one turn of one way gave: images a second, and processor seconds an image over all threads and workers.

    webdataset is the version of it that was used, '' for none.
    """

    rate: float
    cpu: float
    webdataset: str = ""


def picture(rng: np.random.Generator) -> bytes:
    """Returns a JPEG: a smooth gradient, 20 shapes with soft edges, and noise."""
    height, width = 375 + int(rng.integers(-12, 13)), 500 + int(rng.integers(-12, 13))
    corners = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    image = cv2.resize(corners, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(20):
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.fillPoly(image, rng.integers(0, width, (1, 5, 2)).astype(np.int32), color, cv2.LINE_AA)
    image = cv2.GaussianBlur(image, (3, 3), 0) + rng.normal(0, NOISE, image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


class Pairs(tfds.core.GeneratorBasedBuilder):
    """The generated pictures and captions as a TFDS data set."""

    VERSION = tfds.core.Version("1.0.0")
    pairs: Sequence[tuple[bytes, str]] = ()

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"image": tfds.features.Image(encoding_format="jpeg"), "caption": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _: Any) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (image, caption) in enumerate(self.pairs):
            yield number, {"image": io.BytesIO(image), "caption": caption}


def stored(root: Path, pairs: Sequence[tuple[bytes, str]]) -> dict[str, Source]:
    """Writes the pairs in each storage and returns its name -> source."""
    per_shard = len(pairs) // SHARDS
    for shard in range(SHARDS):
        with tarfile.open(root / f"{shard:05d}.tar", "w") as tar:
            for number in range(shard * per_shard, (shard + 1) * per_shard):
                for suffix, data in zip(("jpg", "txt"), (pairs[number][0], pairs[number][1].encode()), strict=True):
                    member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    folder = root / "folder"
    folder.mkdir()
    with (root / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number, (image, caption) in enumerate(pairs):
            (folder / f"{number:08d}.jpg").write_bytes(image)
            (folder / f"{number:08d}.txt").write_text(caption)
            rows.writerow([f"folder/{number:08d}.jpg", caption])
    Pairs.pairs = pairs
    tfds.disable_progress_bar()
    builder = Pairs(data_dir=str(root / "tfds"), file_format="array_record")
    builder.download_and_prepare()
    return {
        "tar shards": WebDatasetSource(shards(root), cache_dir=str(root / "index")),
        "ArrayRecord": TfdsSource(builder, "train"),
        "manifest": ManifestSource(str(root / "manifest.csv")),
        "folder": FolderSource(str(folder)),
    }


def shards(root: Path) -> str:
    """Returns the pattern of the tar shards."""
    return str(root / f"{{00000..{SHARDS - 1:05d}}}.tar")


def ours(source: Source, text: TextTransform, antialias: bool) -> Iterator[Any]:
    """Returns training batches of the pipeline: antialiased bicubic, or bilinear without antialias."""
    kind = "bicubic" if antialias else "bilinear"
    image = ImageTransform(size=SIZE, scale=SCALE, ratio=RATIO, interpolation=kind, antialias=antialias)
    return Pipeline(source, {"image": image, "text": text}, batch_size=BATCH).train()


def tf_items(images: Sequence[bytes], load: Callable[[tf.Tensor], tf.Tensor]) -> Iterator[Any]:
    """Returns batches of `load` of each encoded picture, in parallel by AUTOTUNE."""
    data = tf.data.Dataset.from_tensor_slices(tf.constant(list(images))).repeat()
    return iter(data.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE))


def cropped(image: tf.Tensor) -> tf.Tensor:
    """Returns a random crop of [H, W, 3] in the manner of big_vision's 'inception_crop(224)', [224, 224, 3] uint8."""
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros([0, 0, 4], tf.float32),
        aspect_ratio_range=RATIO,
        area_range=SCALE,
        min_object_covered=0.0,
        use_image_if_no_bounding_boxes=True,
    )
    crop = tf.slice(image, begin, extent)
    crop.set_shape([None, None, 3])
    return tf.cast(tf.image.resize(crop, [SIZE, SIZE], "bilinear"), tf.uint8)


def tf_pixels(data: tf.Tensor) -> tf.Tensor:
    """Decodes and crops, [224, 224, 3] uint8."""
    return cropped(tf.io.decode_jpeg(data, channels=3))


def big_vision(files: Sequence[str]) -> Iterator[Any]:
    """Returns batches of a graph with the steps and the options of big_vision's input pipeline."""
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "caption")}

    def prepared(record: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        image = cropped(tf.io.decode_image(example["image"], channels=3, expand_animations=False))
        return {"image": tf.cast(image, tf.float32) / 127.5 - 1, "caption": example["caption"]}

    options = tf.data.Options()
    options.threading.private_threadpool_size = 48
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.inject_prefetch = False
    data = tf.data.Dataset.from_tensor_slices(list(files)).interleave(
        tf.data.TFRecordDataset, cycle_length=16, num_parallel_calls=16
    )
    data = data.with_options(options).shuffle(IMAGES).repeat().map(prepared, num_parallel_calls=100)
    return iter(data.batch(BATCH, drop_remainder=True).prefetch(2))


def tf_records(root: Path, pairs: Sequence[tuple[bytes, str]]) -> list[str]:
    """Writes the pairs as TFRecords of tf.train.Example, as many files as there are shards, and returns their paths."""
    paths = [str(root / f"{shard:05d}.tfrecord") for shard in range(SHARDS)]
    for shard, path in enumerate(paths):
        with tf.io.TFRecordWriter(path) as writer:
            for image, caption in pairs[shard::SHARDS]:
                values = {"image": image, "caption": caption.encode()}
                feature = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in values.items()}
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    return paths


def tf_decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes and keeps one pixel, so that nothing is batched."""
    return tf.io.decode_jpeg(data, channels=3)[0, 0]


def bare(images: Sequence[bytes]) -> Iterator[list[tuple[int, ...]]]:
    """Yields the shapes of batches that simplejpeg decoded, one thread a core."""

    def decode(data: bytes) -> tuple[int, ...]:
        return simplejpeg.decode_jpeg(data).shape

    def chunk(start: int) -> list[tuple[int, ...]]:
        return [decode(images[place % len(images)]) for place in range(start, start + BATCH)]

    threads = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(chunk, place * BATCH) for place in range(2 * threads)]
        while True:
            waiting.append(pool.submit(chunk, (len(waiting) + 1) * BATCH))
            yield waiting.pop(0).result()


def measure(make: Callable[[], Iterator[Any]], seconds: float) -> Measured:
    """Returns the speed after four batches; the processor time is this process's."""
    batches = make()
    for _ in range(4):
        next(batches)
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        next(batches)
        count += BATCH
    found = Measured(count / (time.perf_counter() - start), (time.process_time() - cpu) / count)
    if hasattr(batches, "close"):
        batches.close()
    return found


def open_clip(python: str, root: Path) -> Measured:
    """Returns the speed of one epoch of open_clip's loader, run by another interpreter."""
    script = Path(__file__).with_name("open_clip_input.py")
    command = [python, str(script), shards(root), str(IMAGES), str(BATCH), str(WORKERS)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode:
        raise SystemExit(f"open_clip's loader failed under {python}:\n{run.stderr}")
    return Measured(**json.loads(run.stdout.splitlines()[-1]))


def table(found: dict[str, list[Measured]], peers: Sequence[str]) -> Iterator[str]:
    """Yields the lines of the table: each way, and its ratio to each peer."""
    yield f"{'':26}{'images/s':>9}{'CPU ms':>8}" + "".join(f"{'x ' + peer:>22}" for peer in peers)
    for way, turns in found.items():
        line = f"{way:26}{statistics.median(m.rate for m in turns):9.0f}"
        line += f"{1000 * statistics.median(m.cpu for m in turns):8.2f}"
        for peer in peers:
            line += f"{ratio(turns, found[peer]):13.2f} ({ratio_of_processor(turns, found[peer]):5.2f})"
        yield line


def ratio(mine: Sequence[Measured], other: Sequence[Measured]) -> float:
    """Returns the median over the turns of the ratio of images a second."""
    return statistics.median(a.rate / b.rate for a, b in zip(mine, other, strict=True))


def ratio_of_processor(mine: Sequence[Measured], other: Sequence[Measured]) -> float:
    """Returns the median over the turns of the ratio of images a processor second."""
    return statistics.median(b.cpu / a.cpu for a, b in zip(mine, other, strict=True))


def judged(found: dict[str, list[Measured]], stores: Sequence[str]) -> Iterator[str]:
    """Yields a line for each storage and goal: the ratio, beside what it has to be; a peer left out judges nothing."""
    for row in rows(found, stores):
        word = "reached" if row["reached"] else "MISSED"
        yield f"{row['what']:26}{row['ratio']:6.2f} x {row['peer']:12} {row['goal'].replace('≥', 'goal')}: {word}"


def rows(found: dict[str, list[Measured]], stores: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the same for `benchmarks.report`: medians of images a second, their ratio and its goal."""
    for store in stores:
        for antialias, goals in GOALS.items():
            way = f"{store}{ANTIALIAS if antialias else ''}"
            for peer, goal in goals.items():
                if peer in found:
                    ours, theirs = (statistics.median(m.rate for m in found[name]) for name in (way, peer))
                    row = {"what": way, "unit": "images/s", "ours": ours, "peer": peer, "theirs": theirs}
                    reached = ratio(found[way], found[peer])
                    row |= {"ratio": reached, "of_processor": ratio_of_processor(found[way], found[peer])}
                    yield row | {"goal": f"≥ {goal:.1f}", "reached": reached >= goal}


def main() -> None:
    """Runs every way in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="an interpreter that has open_clip_torch, webdataset and torch")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="that each way runs in each turn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    pairs = [(picture(rng), " ".join(rng.choice(WORDS, 11))) for _ in range(IMAGES)]
    images = [image for image, _ in pairs]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sources = stored(root, pairs)
        text = with_trained_tokenizer(TextTransform(context_length=77), sources["tar shards"])
        ways: dict[str, Callable[[], Measured]] = {}

        def add(name: str, make: Callable[[], Iterator[Any]]) -> None:
            ways[name] = lambda: measure(make, options.seconds)

        for name, source in sources.items():
            for antialias in (False, True):
                make = lambda source=source, antialias=antialias: ours(source, text, antialias)  # noqa: E731
                add(f"{name}{ANTIALIAS if antialias else ''}", make)
        if options.peer_python:
            ways["open_clip"] = lambda: open_clip(options.peer_python, root)
        records = tf_records(root, pairs)
        add("big_vision", lambda: big_vision(records))
        add("tf.data", lambda: tf_items(images, tf_pixels))
        add("tf.io.decode_jpeg", lambda: tf_items(images, tf_decode))
        add("simplejpeg", lambda: bare(images))
        peers = [way for way in ways if way not in sources and not way.endswith(ANTIALIAS)]
        found: dict[str, list[Measured]] = {way: [] for way in ways}
        for turn in range(options.turns):
            order = list(ways)
            place = turn * len(order) // options.turns
            for way in order[place:] + order[:place]:
                found[way].append(ways[way]())
    kilobytes = sum(map(len, images)) / len(images) / 1000
    print(f"{IMAGES} JPEGs of {kilobytes:.0f} kB, to {SIZE} px, {os.cpu_count()} cores, {options.turns} turns")
    for line in table(found, peers):
        print(line)
    for line in judged(found, list(sources)):
        print(line)
    if options.json:
        options.json.write_text(json.dumps(list(rows(found, list(sources)))))
    if options.peer_python:
        version = found["open_clip"][0].webdataset
        note = "" if version == WEBDATASET else f", but the goals are against {WEBDATASET}: install that"
        print(f"open_clip read with webdataset {version}{note}")
    else:
        print("open_clip left out: no --peer-python names an interpreter that has open_clip_torch and webdataset")


if __name__ == "__main__":
    main()
