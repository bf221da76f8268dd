"""--data SPEC: every form opens, what does not fit is a sentence, and planted damage is counted exactly."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data import openmoji
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources import FolderSource, ManifestSource, TfdsSource, WebDatasetSource
from mmjax.data.spec import describe, open_spec
from mmjax.data.transforms import ImageTransform
from tests.data import make_copies
from tests.data.test_sources import Memory, png, tar


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
    return str(openmoji.prepare().data_path)


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


@pytest.mark.parametrize("write", [make_copies.write_shards, make_copies.write_manifest, make_copies.write_folder])
def test_planted_damage_is_counted_exactly(original, tmp_path, write):
    copy = write(original, tmp_path / "copy", share=0.2)
    transforms = {"image": ImageTransform(size=8)}
    pipeline = Pipeline(open_spec(copy.spec), transforms, batch_size=16, max_bad_share=1.0)
    masks = np.concatenate([batch.mask for batch in pipeline.eval_batches()])[: copy.size]
    assert pipeline.bad.counts() == dict(copy.planted) and sum(copy.planted.values()) == 10
    assert np.flatnonzero(~masks).tolist() == sorted(copy.damaged)
