"""Whatever the bytes of a tar shard or of a manifest: each record is read or bad, or a sentence says what is wrong."""

import io
import itertools
import json
import tarfile

import pytest
from hypothesis import strategies as st

from mmjax.core.errors import UserError
from mmjax.data.source import BadRecord
from mmjax.data.sources import ManifestSource, WebDatasetSource
from tests.fuzzing import amounts, fuzz, json_values, odd_text, spliced

NAMES = [
    "a.jpg",
    "a.txt",
    "a.json",
    "b.jpg",
    "b.txt",
    "../../etc/passwd",
    "/etc/passwd.jpg",
    "é" * 80 + ".txt",
    ".x",
    "",
]


def read_all(open_source) -> None:
    """Opens a source and reads each record; BadRecord and UserError are the only ways in which that may fail."""
    try:
        source = open_source()
    except UserError as error:
        assert str(error)
        return
    for index in range(len(source)):
        try:
            assert set(source.read(index)) == set(source.columns)
        except BadRecord as error:
            assert error.kind and error.detail and source.label(index)


@pytest.fixture
def fresh(tmp_path):
    """Returns a function that writes bytes to a file that was not there before, and returns its path."""
    numbers = itertools.count()

    def write(data: bytes, suffix: str) -> str:
        path = tmp_path / f"{next(numbers)}{suffix}"
        path.write_bytes(data)
        return str(path)

    return write


# ---------------------------------------------------------------- tar shards


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Returns a tar of odd members: links, devices, lying sizes, pax headers of any key."""
    out = io.BytesIO()
    format = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    with tarfile.open(fileobj=out, mode="w", format=format):
        for _ in range(draw(st.integers(0, 4))):
            member = tarfile.TarInfo(draw(st.one_of(st.sampled_from(NAMES), odd_text)))
            kinds = [
                tarfile.REGTYPE,
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.DIRTYPE,
                tarfile.CONTTYPE,
                tarfile.FIFOTYPE,
            ]
            member.type = draw(st.sampled_from([tarfile.REGTYPE] * 6 + kinds + [b"S", b"9", b"x", b"g", b"L"]))
            member.linkname = draw(st.sampled_from(["", "../../etc/passwd", "a.jpg"]))
            data = draw(st.one_of(st.binary(max_size=30), json_values.map(json.dumps).map(str.encode)))
            member.size = draw(st.sampled_from([len(data)] * 6 + [0, 2**40, 8 * 2**30 - 1]))
            if format == tarfile.PAX_FORMAT:
                keys = st.sampled_from(["path", "size", "GNU.sparse.size", "x"])
                member.pax_headers = draw(
                    st.dictionaries(keys, st.one_of(odd_text, st.integers().map(str)), max_size=2)
                )
            try:
                header = member.tobuf(format, "utf-8", "surrogateescape")
            except (ValueError, UnicodeError):  # what this format cannot hold
                continue
            out.write(header + data.ljust(-(-len(data) // 512) * 512, b"\0"))
    return out.getvalue()


@st.composite
def checked(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> bytes:
    """Returns bytes of data with some damaged, and the checksums of the headers put right: the damage is believed."""
    found = bytearray(draw(data.flatmap(spliced)))
    for at in range(0, len(found) - 511, 512):
        if draw(st.booleans()):
            found[at + 148 : at + 156] = b" " * 8
            found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return bytes(found)


@st.composite
def pax(draw: st.DrawFn) -> bytes:
    """Returns a tar whose pax header holds any text in the place of its records."""
    number = st.one_of(st.integers(-10, 10**12).map(lambda n: b"%d" % n), st.just(b"9" * 5000))
    record = st.tuples(number, st.sampled_from([b" ", b"  ", b"="]), st.sampled_from([b"size", b"path", b"x"]), number)
    records = draw(
        st.lists(st.one_of(record.map(lambda r: r[0] + r[1] + r[2] + b"=" + r[3] + b"\n"), st.binary(max_size=20)))
    )
    sizes = st.sampled_from([b"5", b"-5", b"0", b"-1", b"9" * 5000, b"1e3", b" 7 ", b"1_0", "٣".encode()])
    body = draw(st.one_of(st.just(b"".join(records)), sizes.map(lambda s: b"9999 size=" + s)))
    out = io.BytesIO()
    for kind, data in ((tarfile.XHDTYPE, body), (tarfile.REGTYPE, b"data")):
        member = tarfile.TarInfo("a.txt")
        member.type, member.size = kind, len(data)
        out.write(member.tobuf(tarfile.USTAR_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0"))
    return out.getvalue() + bytes(1024)


@amounts
def test_any_bytes_as_a_tar(amount, fresh, tmp_path):
    def check(data: bytes) -> None:
        path = fresh(data, ".tar")
        read_all(lambda: WebDatasetSource(path, cache_dir=str(tmp_path / "cache")))

    fuzz(amount, check, st.one_of(st.binary(max_size=2000), tars(), tars().flatmap(spliced), checked(tars()), pax()))


@pytest.mark.parametrize("size", [b"-1024", b"9" * 5000, b"1_0", b"x"])
def test_a_pax_size_that_is_none_breaks_the_shard_off(size, fresh, tmp_path):
    """-1024 once sent the reader back to the same header for ever."""
    out = io.BytesIO()
    for kind, data in ((tarfile.XHDTYPE, b"9999 size=" + size), (tarfile.REGTYPE, b"data")):
        member = tarfile.TarInfo("a.txt")
        member.type, member.size = kind, len(data)
        out.write(member.tobuf(tarfile.USTAR_FORMAT) + data.ljust(-(-len(data) // 512) * 512, b"\0"))
    source = WebDatasetSource(fresh(out.getvalue(), ".tar"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(BadRecord, match="truncated_shard"):
        source.read(0)


def test_a_member_whose_folder_has_a_line_break_is_a_sample(fresh, tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name in ("a\nb/0.jpg", "a\nb/0.txt"):
            member = tarfile.TarInfo(name)
            member.size = 1
            file.addfile(member, io.BytesIO(b"x"))
    source = WebDatasetSource(fresh(out.getvalue(), ".tar"), cache_dir=str(tmp_path / "cache"))
    assert source.read(0) == {"image": b"x", "caption": ["x"]}


def test_brackets_a_thousand_deep_are_a_malformed_row(fresh):
    path = fresh(b'{"x": ' + b"[" * 100_000 + b'\n{"x": 1}\n', ".jsonl")
    with pytest.raises(BadRecord, match="malformed_row"):
        ManifestSource(path).read(0)


# ---------------------------------------------------------------- manifests

LINES = st.one_of(
    st.dictionaries(st.sampled_from(["image", "caption", "x", ""]), json_values, max_size=3).map(json.dumps),
    json_values.map(json.dumps),
    odd_text,
    st.sampled_from(['"', "image,caption", "a.jpg,x", '"a', "[" * 3000, "9" * 5000, "NaN", '{"image": "a.jpg"}']),
)


@amounts
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_any_bytes_as_a_manifest(amount, suffix, fresh, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"picture")

    def check(data: bytes) -> None:
        path = fresh(data, suffix)
        read_all(lambda: ManifestSource(path))
        read_all(lambda: ManifestSource(path, columns={"image": "image", "caption": "caption"}))

    ends = st.sampled_from(["\n", "\r\n", "\r", "\n\n"])
    texts = st.tuples(st.lists(LINES, max_size=5), ends).map(lambda t: t[1].join(t[0]).encode(errors="surrogatepass"))
    header = b"image,caption\n" if suffix != ".jsonl" else b""
    fuzz(
        amount,
        check,
        st.one_of(st.binary(max_size=200), texts, texts.map(lambda t: header + t), texts.flatmap(spliced)),
    )
