"""Every source gives the same records of the same data, finds its columns, and names what is damaged."""

import concurrent.futures
import dataclasses
import errno
import importlib
import io
import json
import os
import pathlib
import sys
import tarfile

import cv2
import fsspec
import numpy as np
import pytest
import tensorflow_datasets as tfds

from mmjax.core.errors import UserError
from mmjax.data.source import BadRecord
from mmjax.data.sources import (
    FolderSource,
    ManifestSource,
    TfdsSource,
    WebDatasetSource,
    files,
    tar_index,
    tar_members,
    to_array_record,
)
from tests.data import make_copies

# ---------------------------------------------------------------- the data


@dataclasses.dataclass
class Memory:
    """A source in memory."""

    records: list[dict]
    name: str = "memory"
    columns: tuple[str, ...] = ("image", "caption")

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> dict:
        return self.records[index]

    def label(self, index: int) -> str:
        return str(index)


def png(seed: int, size: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture(scope="module")
def original() -> Memory:
    return Memory([{"image": png(i), "caption": [f"picture {i}, “größer” ナイス", f"no. {i}"]} for i in range(50)])


def outcomes(source) -> list:
    """Returns of every record its columns 'image' and 'caption', or the kind of its damage."""
    found = []
    for index in range(len(source)):
        try:
            record = source.read(index)
            found.append((record["image"], record["caption"]))
        except BadRecord as error:
            found.append(error.kind)
    return found


def tar(path, members, format=tarfile.PAX_FORMAT) -> str:
    with tarfile.open(path, "w", format=format) as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1700000000.5  # a pax header for every member, as webdataset writes
            file.addfile(member, io.BytesIO(data))
    return str(path)


def bad(source, index: int) -> BadRecord:
    with pytest.raises(BadRecord) as error:
        source.read(index)
    return error.value


# ---------------------------------------------------------------- copies agree


def test_copies_hold_the_same_records(original, tmp_path):
    shards = make_copies.write_shards(original, tmp_path / "shards", per_shard=20)
    manifest = make_copies.write_manifest(original, tmp_path / "jsonl")
    table = make_copies.write_manifest(original, tmp_path / "tsv", suffix=".tsv")
    folder = make_copies.write_folder(original, tmp_path / "folder")
    full = [(r["image"], r["caption"]) for r in original.records]
    first = [(image, captions[:1]) for image, captions in full]
    assert outcomes(ManifestSource(manifest.spec)) == full
    assert outcomes(FolderSource(folder.spec)) == full
    assert outcomes(ManifestSource(table.spec)) == first
    source = WebDatasetSource(shards.spec, cache_dir=str(tmp_path / "cache"))
    assert shards.spec.endswith("{00000..00002}.tar") and outcomes(source) == first


def test_reads_are_thread_safe(original, tmp_path):
    shards = make_copies.write_shards(original, tmp_path / "shards", per_shard=7)
    manifest = make_copies.write_manifest(original, tmp_path / "jsonl")
    tar_source = WebDatasetSource(shards.spec, cache_dir=str(tmp_path / "cache"))
    tar_source._reader = files.RangeReader(most=2)  # so that descriptors are closed all the time
    order = np.random.default_rng(0).integers(0, 50, 2000).tolist()
    for source in (tar_source, ManifestSource(manifest.spec)):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            images = list(pool.map(lambda i, s=source: s.read(i)["image"], order))
        assert images == [original.records[i]["image"] for i in order]


def test_a_file_closes_when_modules_are_gone(tmp_path, monkeypatch):
    """As at the end of the interpreter, where the names of a module may be None."""
    (tmp_path / "file").write_bytes(b"abc")
    descriptor = files._Descriptor(str(tmp_path / "file"))
    monkeypatch.setattr(files, "os", None)
    descriptor.__del__()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor.number)
    del descriptor.number  # so that the real __del__ does not close whatever has the number next


def test_planted_damage_is_exact(original, tmp_path):
    writers = (make_copies.write_shards, make_copies.write_manifest, make_copies.write_folder)
    for number, write in enumerate(writers):
        copy = write(original, tmp_path / str(number), share=0.2, seed=3)
        again = make_copies.plan(len(original), 0.2, seed=3)
        assert copy.planted == {"absurd_dimensions": 2, "empty_caption": 2, "empty_file": 3, "truncated_image": 3}
        assert copy.damaged == again and copy.size == 50
        source = make_copies_open(copy.spec, tmp_path)
        found = outcomes(source)
        for index, kind in copy.damaged.items():
            if kind == "empty_file":
                assert found[index] == kind
            else:
                assert found[index][0] == make_copies.damage(kind, original.records[index]["image"], [])[0]
                assert (found[index][1] == []) == (kind == "empty_caption")
        assert sum(isinstance(f, str) for f in found) == 3


def make_copies_open(spec: str, tmp_path):
    if spec.endswith(".tar"):
        return WebDatasetSource(spec, cache_dir=str(tmp_path / "cache"))
    return ManifestSource(spec) if spec.endswith(".jsonl") else FolderSource(spec)


def test_huge_png_is_well_formed():
    data = make_copies.huge_png()
    assert len(data) < 100 and data[16:24] == (60_000).to_bytes(4, "big") * 2
    small = make_copies.huge_png(1, 1)
    assert small[:16] == data[:16] and len(small) == len(data)


# ---------------------------------------------------------------- tar shards


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_index_agrees_with_tarfile(tmp_path, format):
    long = "d" * 90 + "/" + "e" * 80
    members = [("a.jpg", b"x" * 700), (f"{long}.jpg", b""), (f"{long}.seg.png", b"y" * 512), ("../up.txt", b"z")]
    members += [] if format == tarfile.USTAR_FORMAT else [("ü" * 120 + ".txt", b"1")]
    path = tar(tmp_path / "a.tar", members, format)
    with tarfile.open(path, "a", format=format) as file:
        folder = tarfile.TarInfo("folder.d")
        folder.type = tarfile.DIRTYPE
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "f" * 140 if format != tarfile.USTAR_FORMAT else "f"
        last = tarfile.TarInfo("last.txt")
        for member in (folder, link, last):
            file.addfile(member)
    with tarfile.open(path) as file:
        expected = [(m.name, m.offset_data, m.size) for m in file if m.isreg()]
    with open(path, "rb") as file:
        assert list(tar_members.members(file, os.path.getsize(path), path)) == expected
    assert [name for name, _, _ in expected] == [name for name, _ in members] + ["last.txt"]


def test_two_archives_in_one_file_are_both_read(tmp_path):
    one = tar(tmp_path / "1.tar", [("a.jpg", b"1"), ("a.txt", b"one")])
    two = tar(tmp_path / "2.tar", [("a.jpg", b"2"), ("a.txt", b"two")])
    both = tmp_path / "both.tar"
    both.write_bytes(b"".join(pathlib.Path(path).read_bytes() for path in (one, two)))
    source = WebDatasetSource(str(both), cache_dir=str(tmp_path))
    assert outcomes(source) == [(b"1", ["one"]), (b"2", ["two"])]


def test_captions_come_from_json_where_there_is_no_text(tmp_path):
    rows = [{"caption": "one", "width": 3}, {"caption": ["a", " ", "b"]}, {"width": 3}, {"caption": None}]
    members = [m for i, row in enumerate(rows) for m in ((f"{i}.webp", b"i"), (f"{i}.json", json.dumps(row).encode()))]
    path = tar(tmp_path / "a.tar", [*members, ("9.webp", b"i"), ("9.json", b"{not json")])
    source = WebDatasetSource(path, cache_dir=str(tmp_path))
    assert source.mapping == {"image": "webp", "caption": "json.caption"}
    captions = [found if isinstance(found, str) else found[1] for found in outcomes(source)]
    assert captions == [["one"], ["a", "b"], "missing_caption", [], "missing_caption"]
    assert source.label(4) == f"{path}:9"


def test_most_samples_decide_where_captions_are(tmp_path):
    rows = [{"caption": None, "name": "0.png"}, *({"caption": f"{i}"} for i in range(1, 40))]
    members = [m for i, row in enumerate(rows) for m in ((f"{i}.png", b"i"), (f"{i}.json", json.dumps(row).encode()))]
    path = tar(tmp_path / "a.tar", [("README.txt", b"read me"), *members])
    source = WebDatasetSource(path, cache_dir=str(tmp_path))
    assert source.mapping == {"image": "png", "caption": "json.caption"}
    assert outcomes(source)[1:4] == [(b"i", []), (b"i", ["1"]), (b"i", ["2"])]
    both = tar(tmp_path / "b.tar", [*members, *((f"{i}.txt", b"t") for i in range(40))])
    assert WebDatasetSource(both, cache_dir=str(tmp_path)).mapping["caption"] == "txt"


def test_columns_can_be_given(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.jpg", b"i"), ("a.cls", b"7"), ("a.json", b'{"title": "t", "k": 3}')])
    columns = {"image": "png;jpg", "caption": "json.title", "label": "cls", "k": "json.k"}
    source = WebDatasetSource(path, columns, cache_dir=str(tmp_path))
    assert source.read(0) == {"image": b"i", "caption": ["t"], "label": b"7", "k": 3}
    with pytest.raises(UserError, match=r"columns\['label'\] is 'clz', which .*Did you mean 'cls'"):
        WebDatasetSource(path, {"label": "clz"}, cache_dir=str(tmp_path))


def test_a_sample_without_a_member_is_bad(tmp_path):
    members = [("a.jpg", b"i"), ("b.jpg", b"i"), ("b.txt", b"b"), ("c.txt", b"c"), ("d.jpg", b""), ("d.txt", b"d")]
    source = WebDatasetSource(tar(tmp_path / "a.tar", members), cache_dir=str(tmp_path))
    assert outcomes(source) == ["missing_caption", (b"i", ["b"]), "missing_image", "empty_file"]


@pytest.mark.parametrize("kept", range(9 * 512, 24 * 512, 700))
def test_a_cut_shard_keeps_its_whole_samples(tmp_path, kept):
    members = [m for i in range(4) for m in ((f"{i}.jpg", bytes([i]) * 600), (f"{i}.txt", b"caption"))]
    path = tar(tmp_path / "a.tar", members, tarfile.USTAR_FORMAT)
    whole = outcomes(WebDatasetSource(path, cache_dir=str(tmp_path)))
    assert len(whole) == 4 and os.path.getsize(path) > 20 * 512
    os.truncate(path, kept)
    source = WebDatasetSource(path, cache_dir=str(tmp_path))
    per_sample = 5 * 512  # two headers, two blocks of picture, one of text, of which 7 bytes count
    found, complete = outcomes(source), sum(kept >= i * per_sample + 4 * 512 + 7 for i in range(4))
    if kept >= 4 * per_sample + 512:  # an end mark is left, so nothing is lost
        assert found == whole and "break off" not in source.found
    else:
        assert found[:complete] == whole[:complete] and set(found[complete:]) <= {"truncated_shard", "missing_caption"}
        assert found[-1] == "truncated_shard" and found.count("truncated_shard") == 1
        assert "1 of 1 shards break off before their end: a.tar" in source.found
        assert "breaks off at byte" in bad(source, len(source) - 1).detail


def test_a_shard_that_is_no_tar_is_bad_alone(tmp_path):
    tar(tmp_path / "0.tar", [("a.jpg", b"i"), ("a.txt", b"a")])
    (tmp_path / "1.tar").write_bytes(b"<html>404 not found</html>" * 40)
    (tmp_path / "2.tar").write_bytes(b"")
    source = WebDatasetSource(str(tmp_path / "{0..2}.tar"), cache_dir=str(tmp_path))
    assert outcomes(source) == [(b"i", ["a"]), "truncated_shard", "truncated_shard"]
    assert source.label(2).endswith("2.tar:(cut)")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_compressed_shard_is_a_sentence(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}") as file:
        file.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(UserError, match="compressed and cannot be read at random"):
        WebDatasetSource(str(tmp_path / "a.tar"), cache_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["BZ", "BZh91AY&SY"])
def test_a_shard_whose_first_name_looks_compressed_is_read(tmp_path, name):
    path = tar(tmp_path / "a.tar", [(f"{name}.jpg", b"i"), (f"{name}.txt", b"t")], tarfile.USTAR_FORMAT)
    assert outcomes(WebDatasetSource(path, cache_dir=str(tmp_path))) == [(b"i", ["t"])]


def test_the_index_is_kept_until_the_shard_changes(tmp_path, monkeypatch):
    path, cache = tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("a.txt", b"one")]), str(tmp_path / "cache")
    built, build = [], tar_index.build_index
    monkeypatch.setattr(tar_index, "build_index", lambda *args: built.append(args) or build(*args))
    first = outcomes(WebDatasetSource(path, cache_dir=cache))
    assert outcomes(WebDatasetSource(path, cache_dir=cache)) == first and len(built) == 1
    tar(path, [("b.jpg", b"2"), ("b.txt", b"two")])  # the same size
    os.utime(path, ns=(1, 1))
    assert outcomes(WebDatasetSource(path, cache_dir=cache)) == [(b"2", ["two"])] and len(built) == 2
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert outcomes(WebDatasetSource(path, cache_dir=cache)) == [(b"2", ["two"])] and len(built) == 3


def test_an_index_that_cannot_be_kept_is_built_each_time(tmp_path, caplog):
    path = tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("a.txt", b"one")])
    (tmp_path / "file").write_text("no folder")
    for _ in range(2):
        assert outcomes(WebDatasetSource(path, cache_dir=str(tmp_path / "file"))) == [(b"1", ["one"])]
    assert caplog.text.count("cannot be kept") == 2


def test_a_shard_that_shrinks_while_it_is_read_is_bad(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.jpg", b"1" * 5000), ("a.txt", b"one")])
    source = WebDatasetSource(path, cache_dir=str(tmp_path / "cache"))
    os.truncate(path, 2000)
    assert bad(source, 0).kind == "truncated_shard"


def test_missing_shards_are_named(tmp_path):
    tar(tmp_path / "shard-00000.tar", [("a.jpg", b"i"), ("a.txt", b"a")])
    with pytest.raises(UserError, match=r"2 of 3 shards do not exist: .*shard-00001.tar, .*shard-00002.tar"):
        WebDatasetSource(str(tmp_path / "shard-{00000..00002}.tar"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"No file fits the pattern .*holds shard-00000.tar"):
        WebDatasetSource(str(tmp_path / "*.zip"), cache_dir=str(tmp_path / "cache"))


def test_remote_paths_go_through_fsspec(original, tmp_path):
    small = Memory(original.records[:6])
    copy = make_copies.write_shards(small, tmp_path / "s", per_shard=3)
    make_copies.write_folder(small, tmp_path / "f")
    make_copies.write_manifest(small, tmp_path / "m")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/remote", recursive=True)
    first = [(r["image"], r["caption"][:1]) for r in small.records]
    for pattern in ("memory://remote/s/{00000..00001}.tar", "memory://remote/s/*.tar"):
        assert outcomes(WebDatasetSource(pattern, cache_dir=str(tmp_path / "cache"))) == first
    full = [(r["image"], r["caption"]) for r in small.records]
    assert outcomes(FolderSource("memory://remote/f")) == full
    assert outcomes(ManifestSource("memory://remote/m/captions.jsonl")) == full
    assert copy.size == len(small)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("plain.tar", ["plain.tar"]),
    ],
)
def test_braces(pattern, expected):
    assert files.expand(pattern) == expected


def test_a_backward_range_is_a_sentence():
    with pytest.raises(UserError, match="runs backwards"):
        files.expand("{3..1}.tar")


# ---------------------------------------------------------------- manifests


def manifest(tmp_path, name: str, text: str, images=("a.jpg", "b.jpg", "c.jpg")) -> ManifestSource:
    for image in images:
        (tmp_path / image).write_bytes(image.encode())
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return ManifestSource(str(tmp_path / name))


def test_rows_of_one_picture_are_one_record(tmp_path):
    text = "file_name,caption,split\na.jpg,one,x\nb.jpg,zwei,y\na.jpg,two,z\nb.jpg, ,y\na.jpg,one,x\n"
    source = manifest(tmp_path, "a.csv", text)
    assert outcomes(source) == [(b"a.jpg", ["one", "two"]), (b"b.jpg", ["zwei"])]
    assert source.read(1)["split"] == "y" and source.columns == ("image", "caption", "split")
    assert source.label(1).endswith("a.csv:3")
    alone = ManifestSource(str(tmp_path / "a.csv"), group_by=None)
    assert [f if isinstance(f, str) else f[1] for f in outcomes(alone)] == [
        ["one"], ["zwei"], ["two"], [], ["one"],
    ]  # fmt: skip


def test_malformed_rows_are_bad_and_named_by_line(tmp_path):
    good = '{"image": "a.jpg", "text": ["x", "y"]}'
    text = "\n".join(
        [good, "{broken", "", '["list"]', '{"image": 3, "text": "t"}', '{"image": "b.jpg"}', '{"text": "t"}']
    )
    source = manifest(tmp_path, "a.jsonl", text + '\n{"image": "z.jpg", "text": "t"}\n{"image": "c.jpg", "text": 7}')
    assert outcomes(source) == [
        (b"a.jpg", ["x", "y"]),
        "malformed_row",
        "malformed_row",
        "missing_image",
        (b"b.jpg", []),
        "missing_image",
        "missing_image",
        "undecodable_caption",
    ]
    assert [source.label(i).rsplit(":")[-1] for i in range(4)] == ["1", "2", "4", "5"]
    assert "a.jsonl:2 is not JSON" in bad(source, 1).detail


def test_csv_quotes(tmp_path):
    rows = [
        "image;title",
        'a.jpg;"two\r\nlines; ""quoted"""',
        "",
        'b.jpg;a 5" disk',
        'c.jpg;"never closed',
        "a.jpg;more",
    ]
    source = manifest(tmp_path, "a.csv", "\ufeff" + "\r\n".join([*rows, "b.jpg;too;many", "c.jpg;end"]))
    assert outcomes(source)[:2] == [(b"a.jpg", ['two\r\nlines; "quoted"', "more"]), (b"b.jpg", ['a 5" disk'])]
    kinds = [f if isinstance(f, str) else f[1] for f in outcomes(source)[2:]]
    assert kinds == [["never closed", "end"], "malformed_row"]
    assert source.label(3).endswith("a.csv:8")


@pytest.mark.parametrize("end", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_break_breaks_a_row(tmp_path, end):
    source = manifest(tmp_path, "a.csv", f'image,caption\na.jpg,one{end}two\nb.jpg,"x{end}y\r\nz\n"\nc.jpg,"1\r2"\n')
    assert [caption for _, (caption,) in outcomes(source)] == [f"one{end}two", f"x{end}y\r\nz", "1\r2"]
    assert [source.label(i).rsplit(":")[-1] for i in range(3)] == ["2", "3", "6"]


def test_tsv_without_quotes(tmp_path):
    source = manifest(tmp_path, "a.tsv", 'caption\tpath\nit said "hi\ta.jpg\n"x" y\tb.jpg\n')
    assert outcomes(source) == [(b"a.jpg", ['it said "hi']), (b"b.jpg", ["x y"])]


def test_manifest_mistakes_are_sentences(tmp_path):
    with pytest.raises(UserError, match=r"manifest .*b.csv' does not exist. Did you mean 'a.csv'"):
        manifest(tmp_path, "a.csv", "image,caption\na.jpg,x\n")
        ManifestSource(str(tmp_path / "b.csv"))
    with pytest.raises(UserError, match=r"columns\['caption'\] is 'titel'.*Did you mean 'title'"):
        manifest(tmp_path, "c.csv", "image,title\na.jpg,x\n")
        ManifestSource(str(tmp_path / "c.csv"), {"image": "image", "caption": "titel"})
    with pytest.raises(UserError, match=r"None of the first 1 files .*'x/a.jpg' was looked for at"):
        manifest(tmp_path, "d.csv", "image,title\nx/a.jpg,x\n")
    with pytest.raises(UserError, match=r"web address .*img2dataset"):
        manifest(tmp_path, "e.csv", "url,title\nhttps://x.org/a.jpg,x\n")
    with pytest.raises(UserError, match="names a column twice"):
        manifest(tmp_path, "f.csv", "image,image\na.jpg,x\n")


def test_odd_paths_of_rows_are_missing_pictures_and_failing_storage_is_not(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.implementations.http", None)  # as where no driver is installed
    odd, away = ["b" * 300 + ".jpg", "b\0.jpg", "\ud800.jpg"], ["http://x.org/b.jpg", "foo://b.jpg"]
    rows = "".join(json.dumps({"image": image, "caption": "x"}) + "\n" for image in ["a.jpg", *odd, *away])
    source = manifest(tmp_path, "a.jsonl", rows)
    assert outcomes(source) == [(b"a.jpg", ["x"])] + ["missing_image"] * len(odd) + ["path_outside"] * len(away)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "open", fail, raising=False)
    with pytest.raises(OSError, match="Input/output error"):
        source.read(0)


def test_manifest_root_and_absolute_paths(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"a")
    (tmp_path / "m.csv").write_text(f"image,caption\na.jpg,x\n{tmp_path}/pictures/a.jpg,y\n")
    source = ManifestSource(str(tmp_path / "m.csv"), root=str(tmp_path / "pictures"))
    assert outcomes(source) == [(b"a", ["x"]), (b"a", ["y"])]
    assert outcomes(ManifestSource(str(tmp_path / "m.csv"), root="/")) == ["missing_image", (b"a", ["y"])]


@pytest.mark.parametrize(
    ("root", "path", "leaves"),
    [
        ("data", "a/b.jpg", False),
        ("", "a.jpg", False),
        ("", "../a.jpg", True),
        ("data", "/etc/passwd", True),
        ("/", "/etc/passwd", False),
        ("/data", "/database/a.jpg", True),
        ("data", "gs://bucket/a.jpg", True),
        ("data", "file:///etc/passwd", True),
        ("gs://bucket/d", "a/../b.jpg", False),
        ("gs://bucket/d", "../b.jpg", True),
        ("gs://bucket/d", "gs://bucket/d/b.jpg", False),
        ("gs://bucket/d", "gs://bucket/e/b.jpg", True),
        ("gs://bucket", "s3://bucket/b.jpg", True),
        ("gs://bucket", "/etc/passwd", True),
    ],
)
def test_what_leads_out_of_a_folder(root, path, leaves):
    assert files.leaves(root, path) == leaves


def test_a_path_stays_in_its_folder(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "d" / "a.jpg").write_bytes(b"a")
    away = ["../secret.jpg", "x/../../secret.jpg", " ../other.jpg ", "..", "./../secret.jpg"]
    away += [f"{tmp_path}/secret.jpg", f"file://{tmp_path}/secret.jpg"]
    inside = ["a.jpg", "./a.jpg", "x/../a.jpg", "../d/a.jpg", f"{tmp_path}/d/a.jpg", "..a.jpg"]
    rows = [{"image": path, "caption": "x"} for path in inside + away]
    (tmp_path / "d" / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "d" / "x").mkdir()
    for root in (None, str(tmp_path / "d")):
        found = outcomes(ManifestSource(str(tmp_path / "d" / "m.jsonl"), root=root))
        assert [each[0] if isinstance(each, tuple) else each for each in found] == (
            [b"a"] * 5 + ["missing_image"] + ["path_outside"] * len(away)
        )
    (tmp_path / "d" / "n.jsonl").write_text(json.dumps({"image": "../secret.jpg", "caption": "x"}) + "\n")
    with pytest.raises(UserError, match=r"None of the first 1 files .*stay in it: for absolute paths give the folder"):
        ManifestSource(str(tmp_path / "d" / "n.jsonl"))


def test_the_names_in_a_tar_lead_nowhere(tmp_path):
    """They are labels: nothing is opened or written by them, links included."""
    (tmp_path / "d").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    path = tmp_path / "d" / "a.tar"
    with tarfile.open(path, "w") as file:
        for name in ("../secret", f"{tmp_path}/secret", "link/secret"):
            for suffix, data in ((".jpg", b"mine"), (".txt", b"t")):
                info = tarfile.TarInfo(name + suffix)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, ".."
        file.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    found = outcomes(WebDatasetSource(str(path), cache_dir=str(tmp_path / "cache")))
    assert found == [(b"mine", ["t"])] * 3 and (tmp_path / "secret.jpg").read_bytes() == b"secret"
    kept = [each for each in tmp_path.rglob("*") if tmp_path / "cache" not in (each, *each.parents)]
    assert sorted(kept) == before


# ---------------------------------------------------------------- folders


def test_folder(tmp_path):
    for name, data in {
        "a.jpg": b"a", "a.txt": b"one\n\n two \r\n", "sub/b.PNG": b"b", "sub/b.TXT": b"\xef\xbb\xbfbom", "c.jpg": b"c",
        "d.jpg": b"", "d.txt": b"d", "e.jpg": b"e", "e.txt": b" \n", "f.jpg": b"f", "f.txt": b"\xff\xfe",
        "README.txt": b"", ".hidden.jpg": b"h", ".git/x.jpg": b"h", "notes.md": b"",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    source = FolderSource(str(tmp_path))
    assert outcomes(source) == [
        (b"a", ["one", "two"]),
        "missing_caption",
        "empty_file",
        (b"e", []),
        "undecodable_caption",
        (b"b", ["bom"]),
    ]
    assert source.label(5) == str(tmp_path / "sub" / "b.PNG")
    expected = (
        "6 pictures, 5 of them with a .txt file of the same name; 1 .txt files without a picture, left out; 1 other"
    )
    assert source.found.startswith(expected)
    os.remove(tmp_path / "a.jpg")
    assert bad(source, 0).kind == "missing_image"


def test_a_folder_without_captions_has_pictures_alone(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    source = FolderSource(str(tmp_path))
    assert source.columns == ("image",) and source.read(0) == {"image": b"a"}
    with pytest.raises(UserError, match=r"folder .*x' does not exist. .* holds a.jpg"):
        FolderSource(str(tmp_path / "x"))


# ---------------------------------------------------------------- TFDS


class Captions(tfds.core.GeneratorBasedBuilder):
    """A data set in the form of coco_captions."""

    name = "mmjax_test_captions"
    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        features = {
            "filename": tfds.features.Text(),
            "image": tfds.features.Image(encoding_format="png"),
            "captions": tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()}),
            "label": tfds.features.ClassLabel(names=["red_apple", "pear"]),
            "box": tfds.features.BBoxFeature(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(), "validation": self._generate_examples()}

    def _generate_examples(self):
        for i in range(6):
            texts = [] if i == 5 else [f"first {i}", " ", f"second {i} é"]
            yield (
                i,
                {
                    "filename": f"{i}.png",
                    "image": io.BytesIO(png(i)),
                    "captions": [{"id": 7, "text": text} for text in texts],
                    "label": i % 2,
                    "box": tfds.features.BBox(0.0, 0.0, 0.5, 1.0),
                },
            )


@pytest.fixture(scope="module")
def captions(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("tfds"))
    Captions(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_tfds_gives_encoded_pictures_and_all_captions(captions):
    source = TfdsSource("mmjax_test_captions", "train", data_dir=captions)
    assert source.mapping == {"image": "image", "caption": "captions/text", "label": "label"} and len(source) == 6
    found = outcomes(source)
    assert (png(5), []) in found
    records = {text[0]: (image, text) for image, text in found if text}
    assert records == {f"first {i}": (png(i), [f"first {i}", f"second {i} é"]) for i in range(5)}
    assert source.label(2) == "tfds:mmjax_test_captions/1.0.0:train[2]"
    assert len(TfdsSource("mmjax_test_captions", "train[:50%]+validation", data_dir=captions)) == 9


def test_tfds_columns_can_be_given(captions):
    columns = {"image": "image", "caption": "label", "label": "label", "box": "box", "id": "captions/id"}
    source = TfdsSource("mmjax_test_captions", data_dir=captions, columns=columns)
    record = source.read(0)
    assert (record["caption"], record["label"]) in ((["red apple"], ["red_apple"]), (["pear"], ["pear"]))
    assert source.classes["label"] == ["red_apple", "pear"]
    np.testing.assert_array_equal(record["box"], np.array([0, 0, 0.5, 1], np.float32))
    with pytest.raises(UserError, match=r"'caption/text', which .*Did you mean 'captions/text'"):
        TfdsSource("mmjax_test_captions", data_dir=captions, columns={"caption": "caption/text"})


def test_tfds_folder_of_a_version_and_builder(captions):
    path = os.path.join(captions, "mmjax_test_captions", "1.0.0")
    by_path, by_builder = TfdsSource(path), TfdsSource(tfds.builder_from_directory(path))
    assert outcomes(by_path) == outcomes(by_builder) and len(by_path) == 6


def test_tfds_mistakes_are_sentences(captions, tmp_path):
    with pytest.raises(UserError, match=r"no data set 'coco_caption'.*Did you mean 'coco_captions'"):
        TfdsSource("coco_caption", data_dir=captions)
    with pytest.raises(UserError, match="no split 'test': it has train, validation"):
        TfdsSource("mmjax_test_captions", "test", data_dir=captions)
    with pytest.raises(
        UserError, match=r"not prepared: .*tfds.builder\('mmjax_test_captions', data_dir='\S+', file_format='arr"
    ):
        TfdsSource("mmjax_test_captions", data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"cannot open 'coco_captions:9.9.9'"):
        TfdsSource("coco_captions:9.9.9", data_dir=captions)


def test_tfrecord_gets_the_command_that_converts_it(captions, tmp_path, monkeypatch, capsys):
    builder = Captions(data_dir=str(tmp_path), file_format="tfrecord")
    builder.download_and_prepare()
    with pytest.raises(UserError, match=r"cannot be read at random\. .*once, with: python -m mmjax") as error:
        TfdsSource("mmjax_test_captions", data_dir=str(tmp_path))
    _, module, folder = str(error.value).split("with: python ")[1].split()
    monkeypatch.setattr(sys, "argv", [module, folder])
    importlib.import_module(module).main()
    assert capsys.readouterr().out.endswith("2 shards written.\n") and to_array_record.convert(folder) == 0
    expected = outcomes(TfdsSource("mmjax_test_captions", data_dir=captions))
    assert outcomes(TfdsSource("mmjax_test_captions", data_dir=str(tmp_path))) == expected
    assert not list(builder.data_path.glob("*.part"))
    with pytest.raises(UserError, match=r"no dataset_info\.json"):
        to_array_record.convert(str(tmp_path))


def test_a_damaged_array_record_is_bad(captions, tmp_path):
    builder = Captions(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    (path,) = builder.data_path.glob("*train*")
    data = bytearray(path.read_bytes())
    data[3000:3400] = bytes(400)
    path.write_bytes(bytes(data))
    found = outcomes(TfdsSource("mmjax_test_captions", data_dir=str(tmp_path)))
    assert "unreadable_record" in found and any(not isinstance(f, str) for f in found)
