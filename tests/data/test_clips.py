"""Folders of clips: the layouts of UCF101 and Kinetics, splits that no group crosses, what is missing."""

import csv

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import BadRecord
from mmjax.data.sources.clips import ClipFolderSource, words
from mmjax.data.targets import LabelTarget, classes_of
from mmjax.data.video import VideoTransform
from tests.data.films import film


def put(root, *paths, data=b"clip"):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def ucf(root, groups, names=("ApplyEyeMakeup", "Archery")):
    """Puts two clips of each group of each class there and returns their paths."""
    found = [f"{name}/v_{name}_g{g:02d}_c{c:02d}.avi" for name in names for g in groups for c in (1, 2)]
    put(root / "UCF-101", *found)
    return found


def paths(source):
    return [source.label(index) for index in range(len(source))]


def test_ucf101_by_the_official_lists(tmp_path):
    clips = ucf(tmp_path, (1, 2, 8))
    train = [clip for clip in clips if "_g08" in clip]
    test = [clip for clip in clips if "_g01" in clip]
    lists = tmp_path / "ucfTrainTestlist"
    put(tmp_path, "ucfTrainTestlist/classInd.txt", data=b"1 ApplyEyeMakeup\n2 Archery\n")
    lines = [f"{clip} {1 + ('Archery' in clip)}" for clip in train]
    (lists / "trainlist01.txt").write_text("\r\n".join([*lines, "Archery/v_Archery_g09_c01.avi 2", ""]))
    (lists / "testlist01.txt").write_text("\n".join(test) + "\n")
    for root in (tmp_path, tmp_path / "UCF-101"):  # the lists are in the folder, or beside it
        source = ClipFolderSource(str(root))
        assert [path.split("UCF-101/")[1] for path in paths(source)] == train
        assert "1 listed clips are not there (v_Archery_g09_c01)" in source.found
        assert len(ClipFolderSource(str(root), "test")) == 4
    record = source.read(0)
    assert record == {"video": b"clip", "label": ["ApplyEyeMakeup"], "caption": ["apply eye makeup"]}
    assert source.classes == {"label": ["ApplyEyeMakeup", "Archery"]} and set(record) == set(source.columns)
    with pytest.raises(UserError, match=r"no split 'tset': it has test, train, all\. Did you mean 'test'"):
        ClipFolderSource(str(tmp_path), "tset")


def test_a_group_of_ucf101_is_in_one_split_only(tmp_path):
    ucf(tmp_path, (1, 2, 3))
    (tmp_path / "ucfTrainTestlist").mkdir()
    for split, groups in (("train", "1 2"), ("test", "2 3")):
        lines = [f"Archery/v_Archery_g{int(g):02d}_c0{c}.avi" for g in groups.split() for c in (1, 2)]
        (tmp_path / f"ucfTrainTestlist/{split}list01.txt").write_text("\n".join(lines))
    train, test = ClipFolderSource(str(tmp_path)), ClipFolderSource(str(tmp_path), "test")
    assert len(train) == 2 and all("_g01" in path for path in paths(train)) and len(test) == 4
    assert "2 left out, whose group is in a held-out split too" in train.found


def test_ucf101_without_lists_holds_out_the_groups_that_they_do(tmp_path):
    ucf(tmp_path, range(1, 26), ("Archery",))
    for fold, held_out in ((1, range(1, 8)), (2, range(8, 15)), (3, range(15, 22))):
        test = paths(ClipFolderSource(str(tmp_path), "test", fold))
        train = paths(ClipFolderSource(str(tmp_path), "train", fold))
        assert {int(path[-10:-8]) for path in test} == set(held_out) and len(test) == 14 and len(train) == 36
        assert not set(test) & set(train)
    assert len(ClipFolderSource(str(tmp_path), "all")) == 50
    with pytest.raises(UserError, match="must be 1, 2 or 3"):
        ClipFolderSource(str(tmp_path), fold=4)


def kinetics(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
        writer.writerows([*row, 0] for row in rows)


def test_kinetics_by_its_csv(tmp_path):
    put(tmp_path, *(f"train/{name}_000010_000020.mp4" for name in ("-a_1", "b_000123", "c")), "val/d_000001_000011.mp4")
    put(tmp_path, "val/c_000030_000040.mp4")
    rows = [
        ("playing guitar", "-a_1", 10, 20, "train"),
        ("abseiling, indoors", "b_000123", 10, 20, "train"),
        ("abseiling, indoors", "c", 10, 20, "train"),
        ("playing guitar", "c", 30, 40, "validate"),
        ("playing guitar", "d", 1, 11, "validate"),
        ("yoga", "gone", 1, 11, "train"),
    ]
    kinetics(tmp_path / "all.csv", rows)
    train = ClipFolderSource(str(tmp_path), annotations=str(tmp_path / "all.csv"))
    assert [path.split("/")[-1][:-18] for path in paths(train)] == ["-a_1", "b_000123"]  # c is in the validation split
    assert train.read(1)["label"] == ["abseiling, indoors"] and train.read(0)["caption"] == ["playing guitar"]
    assert "1 listed clips are not there (gone_000001_000011)" in train.found and "1 left out" in train.found
    for name in ("val", "validate"):
        assert len(ClipFolderSource(str(tmp_path), name, annotations=str(tmp_path / "all.csv"))) == 2
    with pytest.raises(UserError, match=r"al\.csv' does not exist\. Did you mean 'all\.csv'"):
        ClipFolderSource(str(tmp_path), annotations=str(tmp_path / "al.csv"))
    kinetics(tmp_path / "gone.csv", rows[-1:])
    with pytest.raises(UserError, match="none of its 1 clips is there"):
        ClipFolderSource(str(tmp_path), annotations=str(tmp_path / "gone.csv"))
    kinetics(tmp_path / "broken.csv", [("yoga", "c", "ten", 20, "train")])
    with pytest.raises(UserError, match="line 2 has no times"):
        ClipFolderSource(str(tmp_path), annotations=str(tmp_path / "broken.csv"))
    (tmp_path / "odd.csv").write_text("label,id\nyoga,c\n")
    with pytest.raises(UserError, match="the columns youtube_id, time_start, time_end, split are missing"):
        ClipFolderSource(str(tmp_path), annotations=str(tmp_path / "odd.csv"))


DAMAGED_CSVS = {
    b"a,v0,1,11,train\nb,v1,1,11": r"k\.csv: line 3 is cut short: it has no split",
    b"a,v0,1,11,train\nb": r"k\.csv: line 3 is cut short: it has no youtube_id, time_start, time_end, split",
    b"a,v0,inf,11,train\n": r"k\.csv: line 2 has no times in seconds",
    b"a,v0,1,nan,train\n": r"k\.csv: line 2 has no times in seconds",
    b"a,v0,1,11,train\ncaf\xe9,v1,1,11,train\n": r"k\.csv: line 3 is not UTF-8 text",
    b"a" * 200_000 + b",v0,1,11,train\n": r"k\.csv: line 2 is no line of a CSV: field larger",
}


@pytest.mark.parametrize("number", range(len(DAMAGED_CSVS)))
def test_a_damaged_csv_of_kinetics_is_a_sentence(tmp_path, number):
    rows, sentence = list(DAMAGED_CSVS.items())[number]
    put(tmp_path, "v0_000001_000011.mp4", "v1_000001_000011.mp4")
    (tmp_path / "k.csv").write_bytes(b"label,youtube_id,time_start,time_end,split\n" + rows)
    with pytest.raises(UserError, match=sentence):
        ClipFolderSource(str(tmp_path), annotations=str(tmp_path / "k.csv"))


def test_the_lists_of_ucf101_may_have_blank_lines_and_must_be_text(tmp_path):
    ucf(tmp_path, (1, 2), ("Archery",))
    put(tmp_path, "ucfTrainTestlist/trainlist01.txt", data=b"\nArchery/v_Archery_g01_c01.avi 1\n \n")
    put(tmp_path, "ucfTrainTestlist/testlist01.txt", data=b"Archery/v_Archery_g02_c01.avi\n\t\n")
    assert len(ClipFolderSource(str(tmp_path))) == len(ClipFolderSource(str(tmp_path), "test")) == 1
    put(tmp_path, "ucfTrainTestlist/trainlist01.txt", data=b"Archery/v_Archery_g09_c01.avi 1\n")
    put(tmp_path, "ucfTrainTestlist/testlist01.txt", data=b"")
    with pytest.raises(UserError, match="none of the 1 clips of ucfTrainTestlist, fold 1, is there"):
        ClipFolderSource(str(tmp_path))
    put(tmp_path, "ucfTrainTestlist/testlist01.txt", data=b"a.avi\nArchery/v_Archery_g02_c01.avi\xff\n")
    with pytest.raises(UserError, match=r"testlist01\.txt: line 2 is not UTF-8 text"):
        ClipFolderSource(str(tmp_path))


def test_numbered_clips_are_no_group(tmp_path):
    names = [f"{split}/{name}/{i:03d}.mp4" for split in ("test", "train") for name in "AB" for i in range(3)]
    put(tmp_path, *names)
    for split, expected in (("train", names[6:]), ("test", names[:6])):
        source = ClipFolderSource(str(tmp_path), split)
        assert paths(source) == [str(tmp_path / name) for name in expected] and "left out" not in source.found


def test_no_video_is_in_two_splits(tmp_path):
    videos = {"train": "abcde", "val": "bcf", "minival": "cd", "test": "ce"}
    put(tmp_path, *(f"{name}_0000{i}0_0000{i}9.mp4" for i, names in enumerate(videos.values(), 1) for name in names))
    rows = [
        ("yoga", name, f"{i}0", f"{i}9", split) for i, (split, names) in enumerate(videos.items(), 1) for name in names
    ]
    kinetics(tmp_path / "k.csv", rows)
    for split, left in {"train": "a", "val": "bf", "minival": "d", "test": "ce"}.items():
        source = ClipFolderSource(str(tmp_path), split, annotations=str(tmp_path / "k.csv"))
        assert [path.split("/")[-1][0] for path in paths(source)] == list(left)
        assert (len(left) < len(videos[split])) == ("left out, whose group" in source.found)
    kinetics(tmp_path / "k.csv", [row for row in rows if row[1] == "c"])
    with pytest.raises(UserError, match=r"nothing is left of 'val'.*others of its group in minival, test.*group 'c'"):
        ClipFolderSource(str(tmp_path), "val", annotations=str(tmp_path / "k.csv"))


def test_folders_of_splits_and_classes(tmp_path):
    put(tmp_path, "train/riding_a_bike/x.mp4", "train/yoga/v1_000000_000010.webm", "train/yoga/v2_000000_000010.webm")
    put(tmp_path, "val/yoga/v1_000010_000020.webm", "train/yoga/notes.txt", "train/.hidden/z.mp4")
    train = ClipFolderSource(str(tmp_path))
    assert [path.split("/")[-1] for path in paths(train)] == ["x.mp4", "v2_000000_000010.webm"]  # v1 is held out
    assert train.read(0)["caption"] == ["riding a bike"] and classes_of(train, "label") == ["riding_a_bike", "yoga"]
    (tmp_path / "train/riding_a_bike/x.mp4").unlink()
    with pytest.raises(BadRecord, match="missing_video"):
        train.read(0)
    plain = ClipFolderSource(str(tmp_path / "train"), "all")
    assert len(plain) == 2 and plain.classes == {"label": ["yoga"]}


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        ClipFolderSource(str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"there is no clip \(\.avi"):
        ClipFolderSource(str(tmp_path))
    put(tmp_path, "loose.mp4")
    with pytest.raises(UserError, match="is in no folder of a class"):
        ClipFolderSource(str(tmp_path))
    assert words("HandstandPushups") == "handstand pushups" and words("TaiChi") == "tai chi"


def test_a_pipeline_reads_clips_and_passes_over_damaged_ones(tmp_path):
    put(tmp_path, "a/1.mp4", "b/2.mp4", data=film("mp4", 12))
    put(tmp_path, "a/3.mp4", data=b"")
    put(tmp_path, "b/4.mp4", data=film("mp4", 12)[:-9])
    source = ClipFolderSource(str(tmp_path), "all")
    targets = {"action": LabelTarget(classes=source.classes["label"])}
    pipeline = Pipeline(source, {"video": VideoTransform(num_frames=4, size=8)}, 4, targets=targets, max_bad_share=0.9)
    (batch,) = pipeline.eval_batches()
    assert batch.mask.tolist() == [True, False, True, False] and batch.targets["action"].tolist() == [0, -1, 1, -1]
    assert pipeline.bad.counts() == {"empty_file": 1, "truncated_video": 1}
    assert batch.streams["video"].values.dtype == np.uint8 and batch.streams["video"].mask[0].all()
