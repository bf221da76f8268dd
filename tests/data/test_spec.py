"""--data SPEC: every form opens, what does not fit is a sentence, and planted damage is counted exactly."""

import errno
import os
import pathlib
import sys

import numpy as np
import pytest

from mmjax.core.config import load_config
from mmjax.core.errors import UserError
from mmjax.data.datasets import built, openmoji
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources import FolderSource, ManifestSource, TfdsSource, WebDatasetSource, files
from mmjax.data.spec import describe, open_spec, point_at
from mmjax.data.transforms import ImageTransform, TextTransform
from tests.data import make_copies
from tests.data.test_sources import Memory, png, tar

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def original() -> Memory:
    return Memory([{"image": png(i), "caption": [f"picture {i}"]} for i in range(50)])


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """A TFDS folder with 20 emoji."""
    names = openmoji._names
    monkeypatch.setattr(openmoji, "_names", lambda emoji: dict(sorted(names(emoji).items())[1000:1020]))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return str(built.built(openmoji.OpenMoji).data_path)


def test_every_form_opens(original, tmp_path):
    shards = make_copies.write_shards(original, tmp_path / "shards", per_shard=20)
    table = make_copies.write_manifest(original, tmp_path / "table", suffix=".csv")
    rows = make_copies.write_manifest(original, tmp_path / "rows")
    folder = make_copies.write_folder(original, tmp_path / "folder")
    opened = {}
    for spec in (shards.spec, f"{tmp_path}/shards/*.tar", table.spec, rows.spec, folder.spec, f"{folder.spec}/"):
        source = open_spec(spec)
        opened[spec] = type(source)
        assert len(source) == 50 and source.read(7) | original.read(7) == source.read(7)
    assert list(opened.values()) == [WebDatasetSource] * 2 + [ManifestSource] * 2 + [FolderSource] * 2


def test_openmoji_and_tfds_with_splits(prepared):
    assert len(open_spec("openmoji")) + len(open_spec("openmoji:test")) == 20
    assert len(open_spec("openmoji:train[:50%]")) == pytest.approx(len(open_spec("openmoji")) / 2, abs=1)
    for spec in ("tfds:openmoji:1.0.0", "tfds:openmoji:1.0.0:train", f"tfds:{prepared}", prepared):
        assert isinstance(open_spec(spec), TfdsSource) and open_spec(spec).name == "tfds:openmoji/1.0.0:train"
    assert open_spec(f"tfds:{prepared}:test+train[1:2]").name.endswith(":test+train[1:2]")
    assert open_spec("tfds:openmoji").read(1)["caption"] == open_spec("openmoji").read(1)["caption"]


def test_describe_shows_the_guesses(tmp_path, prepared):
    path = tar(tmp_path / "a.tar", [("a.jpg", b"i"), ("a.txt", b""), ("b.jpg", b"i"), ("b.txt", b"red " * 30)])
    lines = describe(open_spec(path)).splitlines()
    assert lines[:4] == [f"{path}: 2 records", "  image <- jpg", "  caption <- txt", "  found: .jpg (2), .txt (2)"]
    assert lines[4] == f"  for instance: {('red ' * 30)[:77] + '...'!r}"
    assert "  caption <- names/en" in describe(open_spec("openmoji"))
    assert describe(Memory([{"image": b"", "caption": ["x"]}])).splitlines()[1:3] == ["  image", "  caption"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "pictures.tar",
            r"gives no records for caption\. Needed: image, caption\. Found: \.cls \(1\), \.png \(1\), read",
        ),
        ("captions.tar", r"gives no records for image\. .*Found: \.txt \(1\).* A sample of a tar shard has a picture"),
        ("broken.tar", r"gives no records for image, caption\. .*1 of 1 shards break off"),
        ("empty", r"gives no records for image, caption\. .*Found: 0 pictures"),
        ("bare", r"gives no records for caption\. .*Found: 1 pictures, 0 of them with a .txt file"),
        ("shards", r"found 0 pictures.*Did you mean '.*shards/\*\.tar'"),
        ("table", r"found 1 pictures.*Did you mean '.*table/metadata\.csv'"),
        ("metadata.tsv", r"gives no records for caption.*Found: the columns image, size.*A manifest has a column"),
        ("header.csv", r"gives no records\. .*Found: the columns image, caption"),
        ("notes.md", r"is a file of no known form\. It can be openmoji\[:SPLIT\], tfds:NAME"),
        ("bear", r"does not exist\. Did you mean 'bare'"),
        ("nowhere/at/all", r"does not exist\. The folder '.*nowhere/at' does not exist"),
    ],
)
def test_what_does_not_fit_is_a_sentence(tmp_path, spec, message):
    tar(tmp_path / "pictures.tar", [("a.png", b"i"), ("a.cls", b"3")])
    tar(tmp_path / "captions.tar", [("a.txt", b"i")])
    (tmp_path / "broken.tar").write_bytes(b"no tar" * 200)
    for folder in ("empty", "bare", "shards", "table"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bare" / "a.jpg").write_bytes(b"i")
    tar(tmp_path / "shards" / "0.tar", [("a.txt", b"i")])
    (tmp_path / "table" / "a.jpg").write_bytes(b"i")
    (tmp_path / "table" / "metadata.csv").write_text("image,caption\na.jpg,x\n")
    (tmp_path / "metadata.tsv").write_text("image\tsize\nbare/a.jpg\t3\n")
    (tmp_path / "header.csv").write_text("image,caption\n")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(UserError, match=message):
        open_spec(str(tmp_path / spec))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("s3://b/0.tar", "pip install s3fs"),
        ("s3://b/*.tar", "pip install s3fs"),
        ("gs://b/a.csv", "pip install gcsfs"),
        ("az://b/folder", "pip install adlfs"),
        ("https://x.org/{0..1}.tar", "pip install aiohttp"),
        ("memry://a.tar", r"Protocol not known: memry\. Did you mean 'memory'"),
        ("memory://nowhere/a.csv", r"manifest 'memory://nowhere/a.csv' does not exist"),
        ("memory://nowhere/a.tar", r"1 of 1 shards do not exist"),
    ],
)
def test_mistakes_of_remote_paths_are_sentences(monkeypatch, spec, message):
    for driver in ("s3fs", "gcsfs", "adlfs", "fsspec.implementations.http"):
        monkeypatch.setitem(sys.modules, driver, None)  # as where it is not installed
    with pytest.raises(UserError, match=message):
        open_spec(spec)


def test_storage_that_fails_is_a_sentence(monkeypatch, tmp_path):
    path = tar(tmp_path / "a.tar", [("a.jpg", b"i"), ("a.txt", b"t")])
    source = open_spec(path)
    os.remove(path)
    with pytest.raises(UserError, match=r"a.tar:a cannot be read: .*No such file"):
        describe(source)
    (tmp_path / "a.csv").write_text("image,caption\n")
    monkeypatch.setattr(files, "opened", open_nothing)
    with pytest.raises(UserError, match=r"--data '.*a.csv' cannot be read: .*Input/output error"):
        open_spec(str(tmp_path / "a.csv"))


def open_nothing(path: str):
    raise OSError(errno.EIO, "Input/output error", path)


def test_a_name_is_what_is_there_before_it_is_a_form(tmp_path):
    for name in ("dir.tar", "dir.csv"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"i")
        (tmp_path / name / "a.txt").write_text("t")
        assert isinstance(open_spec(str(tmp_path / name)), FolderSource)
    for name in ("my[1].tar", "my{0..1}.tar", "a::b.tar"):
        source = open_spec(tar(tmp_path / name, [("a.jpg", b"i"), ("a.txt", b"t")]))
        assert source.read(0) == {"image": b"i", "caption": ["t"]}


def test_mistyped_names_get_the_nearest():
    with pytest.raises(UserError, match=r"'openmojy' does not exist. Did you mean 'openmoji'"):
        open_spec("openmojy")
    with pytest.raises(UserError, match="'' does not exist"):
        open_spec("")


def test_needs_say_which_columns(original, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"i")
    assert open_spec(str(tmp_path), needs=("image",)).columns == ("image",)
    with pytest.raises(UserError, match=r"no records for audio\. Needed: image, audio"):
        open_spec(str(tmp_path), needs=("image", "audio"))


def test_the_paths_of_a_manifest_may_lie_in_another_folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"a")
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists" / "captions.CSV"
    table.write_text(f"image,caption\n{tmp_path}/pictures/a.jpg,x\n")
    with pytest.raises(UserError, match=r"give the folder that holds them \(--data captions.csv:/data\)"):
        open_spec(str(table))
    for root in (tmp_path / "pictures", "/"):
        assert open_spec(f"{table}:{root}").read(0)["image"] == b"a"


@pytest.mark.parametrize("write", [make_copies.write_shards, make_copies.write_manifest, make_copies.write_folder])
def test_planted_damage_is_counted_exactly(original, tmp_path, write):
    copy = write(original, tmp_path / "copy", share=0.2)
    image, text = ImageTransform(size=8), TextTransform(tokenizer="bytes")
    without = {kind: count for kind, count in copy.planted.items() if kind != "empty_caption"}
    assert sum(copy.planted.values()) == 10 and sum(without.values()) == 8
    for transforms, planted in (({"image": image, "text": text}, copy.planted), ({"image": image}, without)):
        pipeline = Pipeline(open_spec(copy.spec), transforms, batch_size=16, max_bad_share=1.0)
        masks = np.concatenate([batch.mask for batch in pipeline.eval_batches()])[: copy.size]
        assert pipeline.bad.counts() == planted
        assert np.flatnonzero(~masks).tolist() == sorted(i for i, kind in copy.damaged.items() if kind in planted)


def test_names_of_columns_and_the_cache_can_be_set(original, tmp_path):
    copy = make_copies.write_manifest(original, tmp_path / "table", suffix=".csv")
    text = pathlib.Path(copy.spec).read_text()
    pathlib.Path(copy.spec).write_text(text.replace("image", "photo_of", 1).replace("caption", "says", 1))
    with pytest.raises(UserError, match=r"data\.source\.columns={'image': \.\.\."):
        open_spec(copy.spec)
    names = {"image": "photo_of", "caption": "says"}
    assert open_spec(copy.spec, columns=names).read(3) | original.read(3) == open_spec(copy.spec, columns=names).read(3)
    shards = make_copies.write_shards(original, tmp_path / "shards", per_shard=20)
    open_spec(shards.spec, cache_dir=str(tmp_path / "index"))
    assert any((tmp_path / "index").rglob("*.npz"))
    with pytest.raises(UserError, match=r"a ManifestSource: the setting: 'cache_dir' is unknown"):
        open_spec(copy.spec, columns=names, cache_dir="x")


def test_a_mixture_of_one_source_and_its_views_stays_one():
    data = load_config(f"{CONFIGS / 'flava.py'}:smoke").data
    point_at(data, "openmoji:test")
    pairs, pictures, names = data.source.sources
    assert pairs is pictures.source is names.source and pairs.spec == "openmoji:test"
    assert data.source.weights == [0.5, 0.25, 0.25]
    bound = load_config(f"{CONFIGS / 'bind.py'}:smoke").data  # of several sources
    point_at(bound, "openmoji:test")
    assert bound.source.spec == "openmoji:test"
