"""Files that go, shrink or are replaced under a running job: bad records or a sentence, never other examples."""

import dataclasses
import os
import types

import fsspec
import pytest

from mmjax.core.errors import UserError
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import BadRecord
from mmjax.data.sources import ManifestSource, TfdsSource, WebDatasetSource, files
from mmjax.data.text import TextTransform
from tests.data.test_sources import Captions, tar


def shard(path, word: str) -> str:
    return tar(path, [m for i in range(30) for m in ((f"{i}.jpg", b"x"), (f"{i}.txt", f"{word} {i:02}".encode()))])


@pytest.fixture
def source(tmp_path) -> WebDatasetSource:
    shard(tmp_path / "0.tar", "left")
    shard(tmp_path / "1.tar", "mine")
    return WebDatasetSource(str(tmp_path / "{0..1}.tar"), cache_dir=str(tmp_path / "cache"))


def words(source) -> set[str]:
    """Returns the first words of all captions, and the kinds of what is bad."""
    found = set()
    for index in range(len(source)):
        try:
            found.add(source.read(index)["caption"][0].split()[0])
        except BadRecord as error:
            assert "1.tar" in error.detail
            found.add(error.kind)
    return found


def forget(source) -> None:
    """Closes the files, as another 256 of them would."""
    source._reader._open.clear()


def test_a_shard_that_is_replaced_gives_no_other_samples(source, tmp_path):
    assert words(source) == {"left", "mine"}
    shard(tmp_path / "new.tar", "else")
    os.replace(tmp_path / "new.tar", tmp_path / "1.tar")
    assert words(source) == {"left", "mine"}  # the open file is still the old one
    forget(source)
    assert words(source) == {"left", "changed_file"}


def test_a_shard_that_is_written_over_gives_no_other_samples(source, tmp_path):
    assert words(source) == {"left", "mine"}
    shard(tmp_path / "1.tar", "else")
    os.utime(tmp_path / "1.tar", ns=(1, 1))
    assert words(source) == {"left", "changed_file"}


def test_a_shard_that_is_gone_is_a_sentence(source, tmp_path):
    os.remove(tmp_path / "1.tar")
    pipeline = Pipeline(source, {"text": TextTransform(tokenizer="bytes")}, batch_size=8)
    with pytest.raises(UserError, match=r"1\.tar:\d+ cannot be read: .*No such file"):
        list(pipeline.eval_batches())


@pytest.mark.parametrize("damage", ["truncate", "replace"])
def test_the_pipeline_counts_what_changed_under_it(source, tmp_path, damage):
    pipeline = Pipeline(source, {"text": TextTransform(tokenizer="bytes", context_length=16)}, 10, max_bad_share=0.6)
    batches = pipeline.train()
    next(batches)
    if damage == "truncate":
        os.truncate(tmp_path / "1.tar", 512)
    else:
        shard(tmp_path / "new.tar", "else")
        with open(tmp_path / "1.tar", "r+b") as file:  # over the old bytes, so that it is never shorter
            file.write((tmp_path / "new.tar").read_bytes())
        os.utime(tmp_path / "1.tar", ns=(1, 1))
    tokenizer = pipeline.transforms["text"].tokenizer
    for _ in range(12):
        last = next(batches)
        assert not any("else" in tokenizer.decode(row) for row in last.streams["text"].values)
    batches.close()
    kind = {"truncate": "truncated_shard", "replace": "changed_file"}[damage]
    assert {kind} <= set(pipeline.bad.counts()) <= {kind, "changed_file"}  # one that was read as it was cut: changed
    with pytest.raises(UserError, match=rf"more than max_bad_share=1.00%.*{kind}"):
        list(dataclasses.replace(pipeline, max_bad_share=0.01).eval_batches())


def test_a_manifest_that_changes_gives_no_other_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n{"x": 2}\n')
    source = ManifestSource(str(path))
    assert source.read(1) == {"x": 2}
    path.write_text('{"x": 3}\n{"x": 4}\n')
    os.utime(path, ns=(1, 1))
    with pytest.raises(BadRecord, match=r"changed_file.*a\.jsonl"):
        source.read(1)
    path.write_text("")
    with pytest.raises(BadRecord, match=r"changed_file.*shorter"):
        source.read(1)


def test_a_remote_shard_is_looked_at_when_it_is_first_read(tmp_path):
    shard(tmp_path / "1.tar", "mine")
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "1.tar"), "/changing/1.tar")
    source = WebDatasetSource("memory://changing/1.tar", cache_dir=str(tmp_path / "cache"))
    tar(tmp_path / "1.tar", [("0.jpg", b"x"), *((f"{i}.txt", b"else") for i in range(60))])
    store.put(str(tmp_path / "1.tar"), "/changing/1.tar")
    assert words(source) == {"changed_file"}


def test_a_remote_shard_is_looked_at_again(tmp_path, monkeypatch):
    """Between two looks the store is not asked: of 30 records in one of its intervals, one read costs a look."""
    now, looks = [0.0], []
    monkeypatch.setattr(files, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    store = fsspec.filesystem("memory")
    monkeypatch.setattr(
        type(store), "info", lambda self, path, info=type(store).info: looks.append(path) or info(self, path)
    )
    store.put(shard(tmp_path / "1.tar", "mine"), "/again/1.tar")
    source = WebDatasetSource("memory://again/1.tar", cache_dir=str(tmp_path / "cache"))
    assert words(source) == {"mine"}
    store.put(shard(tmp_path / "1.tar", "else"), "/again/1.tar")  # of the same length
    looks.clear()
    now[0] += files.LOOK_AGAIN + 1
    assert words(source) == {"changed_file"} and looks == ["/again/1.tar"]


@pytest.mark.parametrize("damage", ["truncate", "replace", "write_over"])
@pytest.mark.parametrize("opened", [True, False])
def test_an_array_record_shard_that_changes_gives_nothing_else(tmp_path, damage, opened):
    """Cut, it would give empty records; replaced, records of another file to whoever had not opened the first."""
    builder = Captions(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    source = TfdsSource("mmjax_test_captions", data_dir=str(tmp_path), columns={"caption": "captions/text"})
    both = TfdsSource("mmjax_test_captions", "train+validation", str(tmp_path), {"caption": "captions/text"})
    before = [both.read(index) for index in range(12)] if opened else []
    (path,) = builder.data_path.glob("*train*")
    if damage == "truncate":
        os.truncate(path, 100)
    else:
        new = path.with_suffix(".new")
        new.write_bytes(path.read_bytes())
        os.utime(new, ns=(1, 1))
        os.replace(new, path) if damage == "replace" else path.write_bytes(new.read_bytes())
    for index in range(6):
        for each in (source, both):
            with pytest.raises(BadRecord, match=r"changed_file.*train\.array_record.*put it back"):
                each.read(index)
    assert not opened or [both.read(index) for index in range(6, 12)] == before[6:]
    pipeline = Pipeline(source, {"text": TextTransform(tokenizer="bytes")}, batch_size=2)
    with pytest.raises(UserError, match=r"max_bad_share=1.00%.*changed_file"):
        next(pipeline.train())
