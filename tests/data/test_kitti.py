"""KITTI files, made here and then damaged: sweeps, labels, calibration and the points of a box."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.source import BadRecord
from mmjax.data.sources.kitti import KittiSource

AXES = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float)  # lidar (ahead, left, up) -> camera (right, down, ahead)
OFFSET = np.array([0.1, -0.2, -0.3])  # of the lidar in the camera's coordinates
RECTIFY = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
SIDES = np.array([4.0, 2.0, 1.5])  # length, width, height of the car
CAR = "Car 0.00 0 -1.57 1 2 3 4 1.5 2.0 4.0 {} {} {} {}"


def own_points(rng, count=40):
    """Returns points [N, 3] in the box's coordinates: half of them inside, half beyond one of the sides."""
    points = rng.uniform(-0.49, 0.49, (count, 3))
    points[count // 2 :, rng.integers(3)] = 0.6
    return points * SIDES


def placed(own, bottom, rotation):
    """Returns lidar coordinates of points in box coordinates, step by step from the benchmark's description."""
    ahead, left, up = own.T
    above = up + SIDES[2] / 2  # the bottom's frame
    x = np.cos(rotation) * ahead + np.sin(rotation) * left  # of computeBox3D: R(y) on (l, h, w), y down
    z = -np.sin(rotation) * ahead + np.cos(rotation) * left
    camera = np.stack([x, -above, z], axis=1) + bottom
    return (np.linalg.inv(RECTIFY) @ camera.T - OFFSET[:, None]).T @ AXES  # AXES is orthogonal


@pytest.fixture
def kitti(tmp_path):
    """A benchmark folder of two sweeps; returns it and the car's points in its own coordinates."""
    rng = np.random.default_rng(0)
    tmp_path = tmp_path / "training"
    for folder in ("velodyne", "label_2", "calib"):
        (tmp_path / folder).mkdir(parents=True)
    own, bottom, rotation = own_points(rng), np.array([2.0, 1.6, 12.0]), 0.7
    for sweep in range(2):
        xyz = placed(own + sweep * np.array([0.01, 0, 0]), bottom, rotation)
        points = np.concatenate([xyz, np.linspace(0, 1, 40)[:, None]], axis=1).astype("<f4")
        points.tofile(tmp_path / f"velodyne/00000{sweep}.bin")
        mount = np.concatenate([AXES, OFFSET[:, None]], axis=1)
        calibration = {"P0": np.zeros(12), "R0_rect": RECTIFY, "Tr_velo_to_cam": mount, "Tr_imu_to_velo": mount}
        text = "".join(f"{key}: {' '.join(map(repr, value.ravel().tolist()))}\n" for key, value in calibration.items())
        (tmp_path / f"calib/00000{sweep}.txt").write_text(text + "\n")
    away = "Pedestrian 0 0 0 0 0 0 0 1.8 0.6 0.6 -30 1.6 50 0\n"
    ignored = "DontCare -1 -1 -10 503 169 590 190 -1 -1 -1 -1000 -1000 -1000 -10\n"
    car = CAR.format(*bottom, rotation) + "\n"
    (tmp_path / "label_2/000000.txt").write_text(ignored + car + away)
    (tmp_path / "label_2/000001.txt").write_text(car.strip() + " 0.97")  # with a score
    return tmp_path, own


def test_whole_sweeps_with_the_types_of_their_objects(kitti):
    path, _ = kitti
    source = KittiSource(str(path))
    assert len(source) == 2 and source.columns == ("points", "label") and source.classes == {}
    record = source.read(0)
    assert record["points"].dtype == np.float32 and record["points"].shape == (40, 4)
    np.testing.assert_array_equal(record["points"].ravel(), np.fromfile(path / "velodyne/000000.bin", np.float32))
    assert record["label"] == ["Car", "Pedestrian"] and source.read(1)["label"] == ["Car"]
    assert source.label(1) == str(path / "velodyne/000001.bin")


def test_sweeps_alone_have_no_labels(kitti):
    path, _ = kitti
    source = KittiSource(str(path / "velodyne"))
    assert len(source) == 2 and source.columns == ("points",) and set(source.read(0)) == {"points"}
    assert source.label(0) == str(path / "velodyne/000000.bin")


def test_objects_are_the_points_in_their_boxes_in_box_coordinates(kitti):
    path, own = kitti
    source = KittiSource(str(path), objects=True)
    assert len(source) == 3 and source.label(0) == f"{path}/label_2/000000.txt:2"
    record = source.read(0)
    assert record["label"] == ["Car"]
    inside = np.concatenate([own[:20], np.linspace(0, 1, 40)[:20, None]], axis=1)
    np.testing.assert_allclose(record["points"], inside, atol=1e-5)
    with pytest.raises(BadRecord, match=r"too_few_points: .*000000\.txt:3 has 0 points"):
        source.read(1)
    cars = KittiSource(str(path), objects=True, types=("Car",), min_points=20)
    assert len(cars) == 2 and cars.classes == {"label": ["Car"]} and cars.read(1)["label"] == ["Car"]
    with pytest.raises(BadRecord, match="min_points is 21"):
        KittiSource(str(path), objects=True, min_points=21).read(0)


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda data: b"", "empty_file"),
        (lambda data: data[:-3], "truncated_sweep"),
        (lambda data: data[:-4] + np.float32(np.nan).tobytes(), "non_finite_points"),
        (lambda data: np.float32(np.inf).tobytes() + data[4:], "non_finite_points"),
        (None, "missing_sweep"),
    ],
)
def test_damaged_sweeps_are_bad_records(kitti, damage, kind):
    path, _ = kitti
    sources = [KittiSource(str(path)), KittiSource(str(path), objects=True)]
    file = path / "velodyne/000000.bin"
    file.unlink() if damage is None else file.write_bytes(damage(file.read_bytes()))
    for source in sources:
        with pytest.raises(BadRecord) as caught:
            source.read(0)
        assert caught.value.kind == kind and "000000.bin" in caught.value.detail
        assert len(source.read(len(source) - 1)["points"])  # the other sweep is fine


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Car 1 2 3", "expected a type and 14 finite numbers, found 'Car 1 2 3'"),
        (CAR.format("x", 0, 0, 0), "could not convert string to float: 'x'"),
        (CAR.format("nan", 0, 0, 0), "14 finite numbers"),
        (CAR.format(0, 0, 0, 0).replace("1.5 2.0", "-1 2.0"), "must be above 0"),
    ],
)
def test_damaged_labels_are_bad_records(kitti, line, message):
    path, _ = kitti
    (path / "label_2/000000.txt").write_text(line)
    with pytest.raises(BadRecord, match=rf"bad_label: .*000000\.txt:1: .*{message}"):
        KittiSource(str(path), objects=True).read(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("R0_rect", "R_rect"), r"bad_calibration: .* R0_rect has 0 numbers; expected 9"),
        (
            lambda text: text.replace("Tr_velo_to_cam: 0.0", "Tr_velo_to_cam:"),
            r"Tr_velo_to_cam has 11 numbers; expected 12",
        ),
        (lambda text: text.replace("R0_rect: 0.8", "R0_rect: zero"), "R0_rect: could not convert"),
        (lambda text: "", "bad_calibration"),
        (None, r"missing_calibration: .*000000\.txt does not exist"),
    ],
)
def test_damaged_calibration_is_a_bad_record(kitti, change, message):
    path, _ = kitti
    file = path / "calib/000000.txt"
    file.unlink() if change is None else file.write_text(change(file.read_text()))
    with pytest.raises(BadRecord, match=message):
        KittiSource(str(path), objects=True).read(0)
    assert len(KittiSource(str(path)).read(0)["points"]) == 40  # whole sweeps need none


def test_a_sweep_without_its_labels(kitti):
    path, _ = kitti
    (path / "label_2/000001.txt").unlink()
    with pytest.raises(BadRecord, match="missing_label"):
        KittiSource(str(path)).read(1)
    assert len(KittiSource(str(path), objects=True)) == 2  # those of the other
    (path / "label_2/000001.txt").write_text("")
    assert KittiSource(str(path)).read(1)["label"] == []


def test_wrong_folders_and_types_are_sentences(kitti):
    path, _ = kitti
    for options, message in (
        ({"objects": True, "types": ("car",)}, r"no object of the type 'car'. Did you mean 'Car'"),
        ({"types": "Car"}, "a list of names"),
        ({"min_points": 0}, "min_points=0 must be at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            KittiSource(str(path), **options)
    with pytest.raises(UserError, match=r"does not exist"):
        KittiSource(str(path / "velodine"))
    with pytest.raises(UserError, match=r"holds no sweeps .*Did you mean '.*/training'"):
        KittiSource(str(path.parent))
    (path / "label_2/000000.txt").write_text("")
    (path / "label_2/000001.txt").write_text("\n")
    with pytest.raises(UserError, match="name no object"):
        KittiSource(str(path), objects=True)
    with pytest.raises(UserError, match="has no folder 'label_2'"):
        KittiSource(str(path / "velodyne"), objects=True)
