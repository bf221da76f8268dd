"""Moving emoji: every motion is an order of the same frames, so only the order tells; frames are where they should."""

import json

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.datasets import action, openmoji
from mmjax.data.datasets.action import MOTIONS, PARAMETERS, MovingEmojiSource, MovingEmojiTransform, places
from mmjax.data.pipeline import Pipeline
from mmjax.data.targets import LabelTarget, classes_of
from mmjax.data.transforms import transform_from_spec
from tests.data.memory import encode

TRANSFORM = MovingEmojiTransform(num_frames=8, size=48)
DRAWN = [0.5, 0.52, 0.2, 0.1, 0.9, 0.2, 0.35, 7.0]
BLACK = encode(np.zeros((128, 128, 3), np.uint8))


def motion(name: str, drawn=DRAWN) -> np.ndarray:
    return np.array([MOTIONS.index(name), *drawn])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Builds 40 emoji only."""
    names, path = openmoji._names, str(tmp_path_factory.mktemp("tfds"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openmoji, "_names", lambda emoji: dict(sorted(names(emoji).items())[1000:1040]))
        openmoji.OpenMojiSource(data_dir=path)
    return path


def test_every_motion_is_an_order_of_the_same_frames():
    for seed in range(20):
        drawn = action._drawn(np.random.default_rng(seed))
        sets = {tuple(sorted(map(tuple, places(motion(name, drawn), 8).tolist()))) for name in MOTIONS}
        assert len(sets) == 1
        orders = {places(motion(name, drawn), 8).tobytes() for name in MOTIONS}
        assert len(orders) == 8
        for name, reverse in zip(MOTIONS[::2], MOTIONS[1::2], strict=True):
            np.testing.assert_array_equal(places(motion(name, drawn), 8), places(motion(reverse, drawn), 8)[::-1])


def test_motions_do_as_they_are_called():
    x, y, size = places(motion("right"), 8).T, places(motion("up"), 8).T, places(motion("grow"), 8).T
    assert (np.diff(x[0]) > 0).all() and (np.diff(y[1]) < 0).all() and (np.diff(size[2]) > 0).all()
    round_ = places(motion("clockwise"), 8)
    angles = np.unwrap(np.arctan2(round_[:, 1] - 0.52, round_[:, 0] - 0.5))  # y grows downward: clockwise is rising
    np.testing.assert_allclose(np.diff(angles), 2 * np.pi * 0.9 / 8)
    np.testing.assert_allclose(np.hypot(round_[:, 0] - 0.5, round_[:, 1] - 0.52), 0.2)


def test_the_picture_stays_on_the_canvas():
    for seed in range(200):
        x, y, size = places(motion("left", action._drawn(np.random.default_rng(seed))), 16).T
        for place in (x, y):
            assert (place - size / 2).min() >= 0 and (place + size / 2).max() <= 1
        assert len(PARAMETERS) == 9 and size.max() / size.min() > 1.39


def test_frames_show_the_picture_where_it_should_be():
    frames = TRANSFORM.prepare({"image": BLACK, "motion": motion("grow")}, None)
    assert frames.shape == (8, 48, 48, 3) and frames.dtype == np.uint8
    ink = (255.0 - frames[..., 0]) / 255  # [8, 48, 48]
    rows, columns = np.mgrid[:48, :48] + 0.5
    for shown, (x, y, size) in zip(ink, places(motion("grow"), 8) * 48, strict=True):
        assert abs((shown * columns).sum() / shown.sum() - x) < 0.1
        assert abs((shown * rows).sum() / shown.sum() - y) < 0.1
        assert abs(np.sqrt(shown.sum()) - size) < 1.1  # a soft edge on each side
    assert (frames[:, 0, 0] == 255).all()


def test_the_mean_over_frames_is_the_same_for_every_motion():
    clips = [TRANSFORM.prepare({"image": BLACK, "motion": motion(name)}, None) for name in MOTIONS]
    means = np.stack([clip.astype(float).mean(axis=0) for clip in clips])
    np.testing.assert_allclose(means, means[:1].repeat(8, axis=0), atol=1e-9)


def test_records_are_the_same_whenever_they_are_read(folder):
    train, test = (MovingEmojiSource(split, 16, data_dir=folder) for split in ("train", "test"))
    assert len(train) + len(test) == 40 * 16
    record = train.read(21)
    assert set(record) == set(train.columns) and record["motion"].shape == (len(PARAMETERS),)
    again = MovingEmojiSource("train", 16, data_dir=folder).read(21)
    assert all(np.array_equal(record[column], again[column]) for column in record)
    other = MovingEmojiSource("train", 16, seed=1, data_dir=folder).read(21)
    assert other["label"] == record["label"] and (other["motion"][1:] != record["motion"][1:]).all()
    assert not np.array_equal(test.read(21)["motion"][1:], record["motion"][1:])
    labels = [train.read(index)["label"] for index in range(len(train))]
    assert {labels.count(name) for name in MOTIONS} == {len(train) // 8}
    assert all(set(labels[start : start + 16]) == set(MOTIONS) for start in range(0, len(train), 16))
    name = openmoji.OpenMojiSource("train", data_dir=folder).read(1)["caption"][0]
    assert record["caption"] == [f"{name} {action.PHRASES[record['label']]}"]
    assert train.label(3) == "moving_emoji:train[3]"
    held_out = {test.read(index)["image"] for index in range(0, len(test), 16)}
    assert not held_out & {train.read(index)["image"] for index in range(0, len(train), 16)}


def test_a_pipeline_renders_batches(folder):
    source = MovingEmojiSource("train", data_dir=folder)
    targets = {"motion": LabelTarget(classes=MOTIONS)}
    pipeline = Pipeline(source, {"video": TRANSFORM}, 4, targets=targets)
    stream = pipeline.train()
    batch = next(stream)
    stream.close()
    spec = pipeline.element_spec()
    assert batch.streams["video"].values.shape == spec.streams["video"].values.shape == (4, 8, 48, 48, 3)
    assert batch.streams["video"].mask.all() and not (batch.streams["video"].values == 255).all()
    assert batch.targets["motion"].tolist() == [MOTIONS.index(source.read(int(i))["label"]) for i in batch.group]
    assert classes_of(source, "label") == list(MOTIONS)
    assert transform_from_spec(json.loads(json.dumps(TRANSFORM.spec()))) == TRANSFORM
    stream = TRANSFORM.collate([None, TRANSFORM.prepare(source.read(0), None)])
    assert stream.mask.tolist() == [[False] * 8, [True] * 8] and not stream.values[0].any()


def test_wrong_settings_are_sentences():
    with pytest.raises(UserError, match="clips_per_emoji=0 must be at least 1"):
        MovingEmojiSource(clips_per_emoji=0)
    with pytest.raises(UserError, match="size=0 must be at least 1"):
        MovingEmojiTransform(size=0)
