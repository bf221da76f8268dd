"""Activity data: people held out, windows as recorded, the published split of BasicMotions."""

import sys

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.datasets import har
from mmjax.data.targets import classes_of


@pytest.fixture(scope="module")
def watch_dir(tmp_path_factory):
    """Builds a fifth of the watch's windows: the build reads seglearn's own data."""
    folder = str(tmp_path_factory.mktemp("watch"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(har, "HOP", 5 * har.HOP)
        har.WatchSource(data_dir=folder)
    return folder


def people(source):
    return {int(source.read(i)["subject"]) for i in range(len(source))}


def recordings(source):
    return {int(source.read(i)["recording"]) for i in range(len(source))}


def test_nobody_is_in_both_splits(watch_dir):
    train, test = (har.WatchSource(split, data_dir=watch_dir) for split in ("train", "test"))
    assert people(test) == set(har.TEST_SUBJECTS)
    assert people(train) == set(har.SUBJECTS) - set(har.TEST_SUBJECTS)
    assert not recordings(train) & recordings(test) and len(recordings(train) | recordings(test)) == 140
    for source in (train, test):
        assert {source.read(i)["label"][0] for i in range(len(source))} == set(har.EXERCISES)


def test_one_person_can_be_held_out(watch_dir):
    train, test = (har.WatchSource(split, held_out=(4,), data_dir=watch_dir) for split in ("train", "test"))
    assert people(test) == {4} and people(train) == set(har.SUBJECTS) - {4}


def test_a_window_is_a_piece_of_its_recording(watch_dir):
    from seglearn.datasets import load_watch

    data, source = load_watch(), har.WatchSource("test", data_dir=watch_dir)
    record = source.read(17)
    assert set(record) == set(source.columns)
    assert record["accelerometer"].shape == record["gyroscope"].shape == (200, 3)
    assert record["accelerometer"].dtype == np.float32
    number = int(record["recording"])
    assert int(record["subject"]) == data["subject"][number]
    assert record["label"] == [har.EXERCISES[data["y"][number]]]
    assert data["y_labels"] == ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]
    whole = data["X"][number].astype(np.float32)
    both = np.concatenate([record["accelerometer"], record["gyroscope"]], axis=1)
    starts = [s for s in range(0, len(whole) - 199, 5 * har.HOP) if np.array_equal(whole[s : s + 200], both)]
    assert len(starts) == 1
    assert source.label(17) == "watch_exercises:test[17]"
    assert classes_of(source, "label") == list(har.EXERCISES)


def test_basic_motions_has_its_published_split(tmp_path):
    train, test = (har.BasicMotionsSource(split, data_dir=str(tmp_path)) for split in ("train", "test"))
    assert len(train) == len(test) == 40
    assert classes_of(train, "label") == list(har.MOTIONS)
    labels = [test.read(i)["label"][0] for i in range(40)]
    assert {name: labels.count(name) for name in har.MOTIONS} == dict.fromkeys(har.MOTIONS, 10)
    record = train.read(0)
    assert set(record) == {"accelerometer", "gyroscope", "label"} and record["gyroscope"].shape == (100, 3)
    first = {train.read(i)["accelerometer"].tobytes() for i in range(40)}
    assert not first & {test.read(i)["accelerometer"].tobytes() for i in range(40)}


def test_wrong_splits_and_people_are_sentences(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"'tset' is unknown\. Did you mean 'test'"):
        har.WatchSource("tset")
    for held_out in ((), (0,), har.SUBJECTS):
        with pytest.raises(UserError, match="some, not all, of the people 1 to 10"):
            har.WatchSource(held_out=held_out)
    monkeypatch.setitem(sys.modules, "seglearn", None)
    with pytest.raises(UserError, match=r"seglearn is not installed: pip install 'mmjax\[data\]'"):
        har.WatchSource(data_dir=str(tmp_path))
