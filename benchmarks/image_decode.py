"""Decode, random resized crop and resize: mmjax's codecs against TensorFlow's own ops, in one run, speed and quality.

    python benchmarks/image_decode.py [--images 300] [--seconds 5]

Generated pictures (shapes, thin lines, noise), so nothing is downloaded. Both sides run as tf.data graphs on all cores,
take turns, and make uint8 batches of 64; on a busy machine, compare the CPU time. Quality is the PSNR against one
reference for both: a full decode and Pillow's antialiased bicubic resize of the same crop.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from mmjax.data.codec import decode
from mmjax.data.crops import Box, random_box, reduce_box, reduction, resize
from mmjax.data.image_header import read_header
from mmjax.data.pipeline import Pipeline
from mmjax.data.tf import tf
from mmjax.data.transforms import ImageTransform

BATCH = 64
SCALE, RATIO = (0.4, 1.0), (3 / 4, 4 / 3)


@dataclasses.dataclass
class Memory:
    """A source of encoded pictures held in memory."""

    images: Sequence[bytes]
    name: str = "memory"
    columns: Sequence[str] = ("image",)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> dict[str, Any]:
        """Returns the encoded picture."""
        return {"image": self.images[index]}

    def label(self, index: int) -> str:
        """Returns its number."""
        return f"#{index}"


def picture(rng: np.random.Generator, height: int, width: int, noise: float) -> np.ndarray:
    """Returns [height, width, 3] uint8 with filled shapes, hairlines and noise."""
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    side = max(height, width)
    for _ in range(25):
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.fillPoly(image, rng.integers(0, side, (1, 5, 2)).astype(np.int32), color, cv2.LINE_AA)
        start, end = rng.integers(0, side, (2, 2)).tolist()
        cv2.line(image, start, end, color[::-1], 1, cv2.LINE_AA)
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)


def encoded(count: int, height: int, width: int, extension: str, noise: float) -> list[bytes]:
    """Returns count encoded pictures."""
    rng = np.random.default_rng(0)
    flags = [cv2.IMWRITE_JPEG_QUALITY, 85] if extension == ".jpg" else []
    images = (picture(rng, height, width, noise) for _ in range(count))
    return [cv2.imencode(extension, image, flags)[1].tobytes() for image in images]


def tf_crop(data: tf.Tensor, box: tf.Tensor, size: int, method: str, jpeg: bool) -> tf.Tensor:
    """Returns the crop by TensorFlow's ops, [size, size, 3] uint8; box is top, left, height, width."""
    if jpeg:
        image = tf.image.decode_and_crop_jpeg(data, box, channels=3)
    else:
        image = tf.image.decode_png(data, channels=3)[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
    image = tf.image.resize(image, [size, size], method, antialias=True)
    image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    return tf.ensure_shape(image, [size, size, 3])


def tf_batches(images: Sequence[bytes], shape: tuple[int, int], size: int, method: str, jpeg: bool) -> Iterator[Any]:
    """Yields batches of random resized crops, all of it TensorFlow's."""

    def load(number: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([0, tf.cast(number, tf.int32)])
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            [*shape, 3],
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed,
            aspect_ratio_range=RATIO,
            area_range=SCALE,
            min_object_covered=0.0,
        )
        box = tf.concat([begin[:2], extent[:2]], 0)
        return tf_crop(data[number % len(images)], box, size, method, jpeg)

    data = tf.constant(list(images))
    dataset = tf.data.Dataset.range(2**40).map(load, num_parallel_calls=os.cpu_count(), deterministic=True)
    return iter(dataset.batch(BATCH).prefetch(2))


def our_batches(images: Sequence[bytes], size: int) -> Iterator[Any]:
    """Yields batches of random resized crops from the pipeline."""
    transform = ImageTransform(size=size, scale=SCALE, ratio=RATIO)
    return Pipeline(Memory(images), {"image": transform}, batch_size=BATCH).train()


def rate(make: Callable[[], Iterator[Any]], seconds: float) -> tuple[float, float]:
    """Returns images per second and processor milliseconds an image (all threads), the first batches left out."""
    batches = make()
    for _ in range(4):
        next(batches)
    start, count, cpu = time.perf_counter(), 0, time.process_time()
    while time.perf_counter() - start < seconds:
        next(batches)
        count += 1
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    del batches
    return count * BATCH / elapsed, 1000 * cpu / (count * BATCH)


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / max(np.mean((image.astype(np.float64) - reference) ** 2), 1e-9)))


def our_crop(data: bytes, box: Box, size: int) -> np.ndarray:
    """Returns the crop as a training step sees it."""
    header = read_header(data)
    factor = reduction(box, size) if header.format == "jpeg" else 1
    top, left, bottom, right = reduce_box(box, factor)
    crop = decode(data, header, factor)[top:bottom, left:right]
    return resize(crop, (size, size), "bicubic", antialias=True, exact=False)


def quality(images: Sequence[bytes], shape: tuple[int, int], size: int, jpeg: bool) -> dict[str, float]:
    """Returns way -> mean PSNR against Pillow's antialiased bicubic on the same crops."""
    rng = np.random.default_rng(1)
    found: dict[str, list[float]] = {"mmjax": [], "tf bicubic": [], "tf bilinear": []}
    for data in images[:40]:
        box = tuple(edge // 8 * 8 for edge in random_box(*shape, SCALE, RATIO, rng))
        top, left, bottom, right = box
        crop = decode(data)[top:bottom, left:right]
        reference = resize(crop, (size, size), "bicubic", antialias=True, exact=True)
        window = tf.constant([top, left, bottom - top, right - left])
        found["mmjax"].append(psnr(our_crop(data, box, size), reference))
        for method in ("bicubic", "bilinear"):
            found[f"tf {method}"].append(psnr(tf_crop(data, window, size, method, jpeg).numpy(), reference))
    return {way: statistics.mean(values) for way, values in found.items()}


def compare(title: str, images: Sequence[bytes], shape: tuple[int, int], size: int, seconds: float, jpeg: bool) -> None:
    """Prints speed and quality of each way, in three turns."""
    ways = {
        "mmjax": lambda: our_batches(images, size),
        "tf bicubic": lambda: tf_batches(images, shape, size, "bicubic", jpeg),
        "tf bilinear": lambda: tf_batches(images, shape, size, "bilinear", jpeg),
    }
    rates: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(3):
        for way, make in ways.items():
            rates[way].append(rate(make, seconds / 3))
    scores = quality(images, shape, size, jpeg)
    kilobytes = sum(map(len, images)) / len(images) / 1000
    print(f"{title}, {kilobytes:.0f} kB, to {size} px, {os.cpu_count()} cores")
    for way in ways:
        speed, cpu = (statistics.median(column) for column in zip(*rates[way], strict=True))
        pairs = list(zip(rates["mmjax"], rates[way], strict=True))
        faster = statistics.median(ours[0] / other[0] for ours, other in pairs)
        cheaper = statistics.median(other[1] / ours[1] for ours, other in pairs)
        print(
            f"  {way:12s}{speed:7.0f} images/s {cpu:6.2f} CPU ms an image   PSNR {scores[way]:4.1f} dB   "
            f"mmjax: {faster:4.2f} times the images/s, {cheaper:4.2f} times the images a CPU second"
        )


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=6.0)
    args = parser.parse_args()
    photos = encoded(args.images, 375, 500, ".jpg", noise=9.0)
    compare("JPEG 500 x 375", photos, (375, 500), 224, args.seconds, jpeg=True)
    large = encoded(args.images // 4, 1200, 1600, ".jpg", noise=4.0)
    compare("JPEG 1600 x 1200", large, (1200, 1600), 224, args.seconds, jpeg=True)
    drawings = encoded(args.images, 128, 128, ".png", noise=0.0)
    compare("PNG 128 x 128", drawings, (128, 128), 60, args.seconds, jpeg=False)


if __name__ == "__main__":
    main()
