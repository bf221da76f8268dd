"""The three kinds of files of KITTI's object benchmark: sweeps, labels and calibration; and the frame of a box.

Camera coordinates are x right, y down, z forward; lidar and box coordinates are x forward, y left, z up; in metres.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mmjax.data.source import BadRecord

POINT_BYTES = 16
"""x, y, z and intensity as little-endian float32."""


@dataclasses.dataclass(frozen=True)
class Box:
    """One labelled object.

    Attributes:
      type: 'Car', 'Pedestrian', ...
      height, width, length: in metres.
      bottom: [3] the middle of its lower face in rectified camera coordinates.
      rotation: about the camera's y axis in radians; 0 faces along the camera's x.
    """

    type: str
    height: float
    width: float
    length: float
    bottom: tuple[float, float, float]
    rotation: float


def parse_points(data: bytes, where: str) -> np.ndarray:
    """Returns the sweep [N, 4] float32: x, y, z in metres and intensity.

    Raises:
      BadRecord: no bytes, a last point that is cut off, or numbers that are not finite.
    """
    if not data:
        raise BadRecord("empty_file", f"{where} has 0 bytes.")
    if len(data) % POINT_BYTES:
        raise BadRecord("truncated_sweep", f"{where} has {len(data):,} bytes, no multiple of {POINT_BYTES} a point.")
    points = np.frombuffer(data, "<f4").reshape(-1, 4).astype(np.float32)  # [N, 4]
    wrong = int((~np.isfinite(points).all(axis=1)).sum())
    if wrong:
        raise BadRecord("non_finite_points", f"{wrong:,} of the {len(points):,} points of {where} are not finite.")
    return points


def parse_box(line: str, where: str) -> Box:
    """Returns the object of one line: type, truncated, occluded, alpha, 4 of a 2-D box, h, w, l, x, y, z, rotation.

    Raises:
      BadRecord: 'bad_label' where it is another line.
    """
    type_, *rest = line.split()
    try:
        numbers = [float(word) for word in rest]
    except ValueError as error:
        raise BadRecord("bad_label", f"{where}: {error}.") from None
    if len(numbers) not in (14, 15) or not np.isfinite(numbers).all():  # a score may follow
        raise BadRecord("bad_label", f"{where}: expected a type and 14 finite numbers, found {line.strip()[:80]!r}.")
    height, width, length, x, y, z, rotation = numbers[7:14]
    if min(height, width, length) <= 0:
        raise BadRecord("bad_label", f"{where}: the sides {height}, {width} and {length} m must be above 0.")
    return Box(type_, height, width, length, (x, y, z), rotation)


def parse_calibration(data: bytes, where: str) -> np.ndarray:
    """Returns [3, 4], which takes (x, y, z, 1) of the lidar to rectified camera coordinates.

    Raises:
      BadRecord: 'bad_calibration' where R0_rect or Tr_velo_to_cam is missing or no matrix.
    """
    lines = (line.partition(":") for line in data.decode("utf-8", "replace").splitlines())
    given = {key.strip(): text for key, colon, text in lines if colon}
    rectify, mount = _matrix(given, "R0_rect", (3, 3), where), _matrix(given, "Tr_velo_to_cam", (3, 4), where)
    return rectify @ mount


def in_box(points: np.ndarray, box: Box, to_camera: np.ndarray) -> np.ndarray:
    """Returns the points [M, 4] of a sweep [N, 4] that lie in a box, x, y, z from its middle: ahead, left, up.

    Args:
      points: of the lidar.
      box: the object.
      to_camera: what `parse_calibration` returned.

    References:
      Geiger et al., Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite, 2012, and the benchmark's
      development kit (computeBox3D.m).
    """
    camera = points[:, :3] @ to_camera[:, :3].T + to_camera[:, 3]  # [N, 3]
    sin, cos = np.sin(box.rotation), np.cos(box.rotation)
    turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])  # of the box to the camera
    ahead, down, left = ((camera - np.array(box.bottom)) @ turn).T
    own = np.stack([ahead, left, -down - box.height / 2], axis=1)  # [N, 3]
    inside = (np.abs(own) <= np.array([box.length, box.width, box.height]) / 2).all(axis=1)
    return np.concatenate([own[inside], points[inside, 3:]], axis=1).astype(np.float32)


def _matrix(given: dict[str, str], key: str, shape: tuple[int, int], where: str) -> np.ndarray:
    try:
        found = np.array([float(word) for word in given.get(key, "").split()])
    except ValueError as error:
        raise BadRecord("bad_calibration", f"{where}: {key}: {error}.") from None
    if len(found) != shape[0] * shape[1] or not np.isfinite(found).all():
        raise BadRecord(
            "bad_calibration", f"{where}: {key} has {len(found)} numbers; expected {shape[0] * shape[1]} finite ones."
        )
    return found.reshape(shape)
