"""Frames of every kind of video come out right and by number; damage of every kind is a bad record, never a crash."""

import dataclasses
import functools
import io
import itertools
import json
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data import film as film_lib
from mmjax.data.animation import Animation
from mmjax.data.clip import by_number
from mmjax.data.clip_sampling import run, spread, timed_run
from mmjax.data.film import Film
from mmjax.data.loading import example_rng
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import BadRecord
from mmjax.data.transforms import VideoTransform, transform_from_spec
from mmjax.data.video_codec import open_clip
from mmjax.data.video_header import sniff
from tests.data.films import FILMS, FRAMES, animation, film, pixels, shown, sound
from tests.data.memory import encode, picture

film = functools.cache(film)
animation = functools.cache(animation)
SMALL = VideoTransform(num_frames=8, size=16)
CLIP = dataclasses.replace(SMALL, sampling="clip")


def rng(position: int) -> np.random.Generator:
    return example_rng(0, position, "video")


def numbers(transform: VideoTransform, value, generator=None) -> list[int]:
    return [shown(frame) for frame in transform.prepare({"video": value}, generator)]


def kind_of(value, transform: VideoTransform = SMALL) -> str:
    """Returns the kind of bad record, or '' where the video is good."""
    try:
        frames = transform.prepare({"video": value}, None)
    except BadRecord as error:
        return error.kind
    assert frames.dtype == np.uint8 and frames.shape[1:] == (16, 16, 3) and 1 <= len(frames) <= 8
    return ""


@functools.cache
def noise(count: int = 100, seconds_of_sound: int = 0) -> bytes:
    """Returns a Matroska file of `count` frames of noise that moves, ten a second; none takes less than 512 bytes."""
    buffer, frame = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("libvpx", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.bit_rate = 1_000_000
        sound = out.add_stream("pcm_u8", rate=8000, layout="mono") if seconds_of_sound else None
        for number in range(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(frame, 3 * number, 1), format="rgb24")))
        out.mux(stream.encode())
        for second in range(seconds_of_sound):
            silence = av.AudioFrame.from_ndarray(np.full((1, 8000), 128, np.uint8), format="u8", layout="mono")
            silence.sample_rate, silence.pts = 8000, 8000 * second
            out.mux(sound.encode(silence))
    return buffer.getvalue()


def frames_of(data: bytes) -> list[tuple[int, int]]:
    """Returns (where it starts, its bytes) of each frame of a film."""
    with av.open(io.BytesIO(data)) as file:
        return [(data.index(bytes(packet)), packet.size) for packet in file.demux(video=0) if packet.size]


def endless(data: bytes) -> bytes:
    """Returns a Matroska file whose segment and clusters do not say how long they are, as if sent live."""
    found = bytearray(data)
    for name in (b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"):
        place = found.find(name) + 4
        while place > 3:
            width = 9 - found[place].bit_length()
            found[place : place + width] = ((1 << 7 * width + 1) - 1).to_bytes(width, "big")
            place = found.find(name, place) + 4
    return bytes(found)


@pytest.mark.parametrize("name", FILMS)
def test_films_give_the_frames_that_were_written(name):
    clip = open_clip(film(name))
    assert len(clip) == FRAMES
    np.testing.assert_allclose(clip.times(), np.arange(FRAMES) / 10, atol=1e-3)
    for wanted in ([0, 1, 2, 17, 39], [23], [38, 39], range(FRAMES)):
        found = list(clip.frames(list(wanted)))
        assert [shown(frame) for frame in found] == list(wanted)
        for number, frame in zip(wanted, found, strict=True):
            assert np.abs(frame.astype(int) - pixels(number)).mean() < 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_give_the_frames_that_were_written(format):
    data = animation(format, duration=tuple([200, *[100] * (FRAMES - 1)]))
    clip = open_clip(data)
    assert len(clip) == FRAMES
    np.testing.assert_allclose(clip.times(), [0, *np.arange(2, FRAMES + 1) / 10], atol=1e-9)
    for number, frame in zip([0, 3, 39], clip.frames([0, 3, 39]), strict=True):
        np.testing.assert_array_equal(frame, pixels(number))


def test_pictures_folders_and_pixels_are_videos(tmp_path):
    frames = [pixels(number) for number in range(12)]
    for number, frame in enumerate(frames):
        (tmp_path / f"frame{number}.png").write_bytes(encode(frame))
    (tmp_path / "notes.txt").write_text("no frame")
    expected = [0, 2, 3, 5, 6, 8, 9, 11]
    for value in (np.stack(frames), [encode(frame) for frame in frames], str(tmp_path)):
        assert numbers(SMALL, value) == expected
    assert sorted(["f10", "f9", "g1", "f09b"], key=by_number) == ["f9", "f09b", "f10", "g1"]
    (tmp_path / "clip.mp4").write_bytes(film())
    assert numbers(SMALL, str(tmp_path / "clip.mp4")) == numbers(SMALL, film())


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_a_turned_film_is_seen_as_it_was_taken(turned):
    frame = next(open_clip(film("mp4 h264", 4, turned=turned)).frames([0]))
    expected = np.rot90(pixels(0), turned // 90)  # both count against the clock
    assert frame.shape == expected.shape and np.abs(frame.astype(int) - expected).mean() < 3


def test_only_what_is_needed_is_decoded(monkeypatch):
    clip, decoded = open_clip(film("mp4 h264", 200, gop=20)), []
    one = Film._decoded

    def counted(self, *args):
        for item in one(self, *args):
            decoded.append(item[0])
            yield item

    monkeypatch.setattr(Film, "_decoded", counted)
    wanted = [5, 99, 101, 190]
    frames = list(clip.frames(wanted))
    assert [shown(frame) for frame in frames] == [number % 42 for number in wanted]
    assert decoded[:6] == list(range(6)) and len(decoded) < 60


def test_a_wrong_index_is_found_out(monkeypatch):
    clip = open_clip(film("mp4 h264"))
    clip._keys = np.array([0, 25])  # says that decoding may begin at 25, where it cannot: the key frame before is 24
    assert [shown(frame) for frame in clip.frames([1, 30])] == [1, 30]
    seek = film_lib.Film._decoded

    def late(self, container, stream, start=None):
        yield from (item for item in seek(self, container, stream, start) if not start or item[0] > 36)

    monkeypatch.setattr(film_lib.Film, "_decoded", late)
    assert [shown(frame) for frame in clip.frames([1, 30, 31])] == [1, 30, 31]


@pytest.mark.parametrize(("given", "kind"), [(0, "truncated_video"), (20, "truncated_video"), (38, "")])
def test_frames_that_the_decoder_does_not_give(monkeypatch, given, kind):
    one = Film._decoded
    monkeypatch.setattr(Film, "_decoded", lambda *args: itertools.islice(one(*args), given))
    assert kind_of(film("avi")) == kind
    if not kind:  # one or two are missing at the end: the last one stays
        assert [shown(frame) for frame in open_clip(film("avi")).frames([37, 38, 39])] == [37, 37, 37]
    monkeypatch.setattr(Film, "_decoded", lambda *args: [][1])
    assert kind_of(film("avi")) == "corrupt_video"


def test_sampling_over_the_whole_clip():
    assert spread(40, 8, None).tolist() == [2, 7, 12, 17, 22, 27, 32, 37]
    assert spread(5, 8, None).tolist() == [0, 1, 2, 3, 4] and spread(8, 8, rng(0)).tolist() == list(range(8))
    drawn = np.stack([spread(40, 8, rng(position)) for position in range(200)])  # [200, 8]
    assert (drawn // 5 == np.arange(8)).all() and all(len(set(column)) == 5 for column in drawn.T)
    assert spread(9, 8, rng(1)).max() <= 8
    segments = dataclasses.replace(SMALL, sampling="segments", scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert len({tuple(numbers(segments, film(), rng(position))) for position in range(4)}) == 4
    uniform = dataclasses.replace(segments, sampling="uniform")
    assert numbers(uniform, film(), rng(3)) == [2, 7, 12, 17, 22, 27, 32, 37]


def test_sampling_a_run():
    assert run(40, 8, 2, None).tolist() == list(range(12, 28, 2))
    starts = {run(20, 8, 2, rng(position))[0] for position in range(200)}
    assert starts == set(range(6))
    assert run(5, 8, 2, rng(0)).tolist() == [0, 2, 4]
    times = np.arange(40) / 10
    assert timed_run(times, 8, 5.0, None).tolist() == [12, 14, 16, 18, 20, 22, 24, 26]
    assert timed_run(times[:2], 4, 20.0, None).tolist() == [0, 0, 1, 1]  # faster than the film: frames repeat
    assert timed_run(times, 40, 10.0, None).tolist() == list(range(40))
    assert timed_run(times, 8, 1.0, rng(0)).tolist() == [0, 10, 20, 30]  # 4 s are shorter than 8
    for position in range(50):
        found = timed_run(times, 8, 5.0, rng(position))
        assert len(found) == 8 and (np.diff(found) == 2).all() and 0 <= found[0] <= 25
    assert timed_run(np.zeros(1), 4, 10.0, None).tolist() == [0]
    assert timed_run(np.zeros(3), 4, 10.0, None).tolist() == [2]  # damaged times are no crash
    timed = dataclasses.replace(CLIP, frame_rate=5.0)
    assert numbers(timed, film()) == [12, 14, 16, 18, 20, 22, 24, 26]
    assert numbers(timed, np.stack([pixels(n) for n in range(8)])) == list(range(8))  # no times: by stride


def test_the_crop_and_the_flip_are_those_of_the_whole_clip():
    frame = picture(3, 40, 60)
    transform = dataclasses.replace(CLIP, scale=(0.2, 0.4), flip=True)
    looks = set()
    for position in range(12):
        frames = transform.prepare({"video": np.stack([frame] * 9)}, rng(position))
        assert (frames == frames[:1]).all()
        looks.add(frames[0].tobytes())
    assert len(looks) == 12
    again = transform.prepare({"video": np.stack([frame] * 9)}, rng(0))
    assert (again == transform.prepare({"video": np.stack([frame] * 9)}, rng(0))).all()


def test_short_clips_are_padded_and_missing_ones_masked():
    short = SMALL.prepare({"video": film("mp4", 3)}, None)
    stream = SMALL.collate([short, None, SMALL.prepare({"video": film()}, None)])
    assert stream.mask.tolist() == [[True] * 3 + [False] * 5, [False] * 8, [True] * 8]
    assert (stream.values[0, :3] == short).all() and not stream.values[0, 3:].any() and not stream.values[1].any()
    for name, (shape, dtype) in SMALL.out_spec().items():
        assert getattr(stream, name).shape == (3, *shape) and getattr(stream, name).dtype == dtype


@pytest.mark.parametrize("name", ["mp4 h264", "webm", "mkv", "avi", "GIF", "WEBP", "PNG"])
def test_a_file_cut_anywhere_is_bad(name):
    data = animation(name) if name.isupper() else film(name)
    kinds = {kind_of(data[:size]) for size in (1, 3, 11, 12, 31, *range(40, len(data), len(data) // 25), len(data) - 1)}
    assert kinds <= {"truncated_video", "truncated_image", "unsupported_video", "corrupt_video"} and kind_of(data) == ""
    assert {kind_of(data[:size]) for size in (len(data) // 2, len(data) - 1)} <= {"truncated_video", "truncated_image"}


@pytest.mark.parametrize("name", [*FILMS, "GIF", "WEBP", "PNG"])
def test_flipped_bytes_are_bad_records_or_pictures_never_a_crash(name):
    data, chance, kinds = animation(name) if name.isupper() else film(name), np.random.default_rng(0), []
    for _ in range(40):
        damaged = bytearray(data)
        for place in chance.integers(len(data), size=chance.choice([1, 4, 30])):
            damaged[place] = chance.integers(256)
        kinds.append(kind_of(bytes(damaged)))
    assert len(set(kinds)) > 1  # some are found


@pytest.mark.parametrize("form", [bytes, endless])
def test_a_hole_in_a_matroska_file_is_found_wherever_it_is(form):
    data, outside = form(noise()), 0
    frames = frames_of(data)
    assert len(open_clip(data)) == len(frames) == 100
    for place in np.linspace(6, len(data) - 512, 150).astype(int):
        holed = data[:place] + bytes(512) + data[place + 512 :]
        if any(start - 3 <= place <= start + size - 512 for start, size in frames):  # of one frame, behind its track
            assert len(open_clip(holed)) == 100
            continue
        outside += 1
        with pytest.raises(BadRecord, match=r"corrupt_video|truncated_video"):
            open_clip(holed)
    assert outside > 40
    assert {kind_of(data[:size]) for size in range(200, len(data), 1009)} == {"truncated_video"}


def test_what_is_no_part_of_a_matroska_file_is_found():
    data = noise(12)
    cluster = data.index(b"\x1f\x43\xb6\x75")
    block = data.rindex(b"\xa3", cluster, frames_of(data)[0][0])
    for damaged in (
        data[:cluster] + b"\x1f\x43\xb6\x74" + data[cluster + 4 :],
        data[:block] + b"\xa9" + data[block + 1 :],
        data.replace(b"\x18\x53\x80\x67", b"\x18\x53\x80\x68", 1),
    ):
        assert damaged != data and kind_of(damaged) == "corrupt_video"
    assert kind_of(data) == kind_of(data + b"behind the end") == kind_of(endless(data)) == ""
    assert kind_of(endless(data) + data) == ""  # two films, one behind the other


def test_a_film_that_ends_well_before_it_says_is_bad(monkeypatch):
    def stating(data: bytes, seconds: float) -> bytes:
        place = data.index(b"\x44\x89\x88") + 3
        return data[:place] + struct.pack(">d", seconds * 1000) + data[place + 8 :]

    assert kind_of(stating(noise(20), 2.5)) == ""
    assert kind_of(stating(noise(20), 6.0)) == "truncated_video"
    assert kind_of(noise(20, seconds_of_sound=6)) == ""  # the sound goes on
    assert kind_of(stating(noise(20, seconds_of_sound=6), 20.0)) == "truncated_video"
    assert kind_of(stating(noise(1), 20.0)) == ""  # one picture may be shown for long
    live = endless(noise(seconds_of_sound=1).replace(b"\x44\x89\x88", b"\xec\x89\x88", 1))
    with av.open(io.BytesIO(live)) as file:
        assert file.duration > 15_000_000  # FFmpeg's guess of ten seconds, from the rate of the sound
    assert kind_of(live) == ""
    monkeypatch.setitem(FILMS, "flv", ("flv", "flv", None))
    assert kind_of(film("flv")) == "" and kind_of(film("flv")[: len(film("flv")) // 2]) == "truncated_video"


def test_what_is_no_video_is_said():
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n"
    assert kind_of(b"") == "empty_file"
    for text in (
        b"a text file renamed to .mp4",
        playlist,
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        encode(picture(1), "JPEG"),
    ):
        assert kind_of(text) == "unsupported_video"
    assert kind_of("nowhere/clip.mp4") == "missing_video"
    assert kind_of(sound()) == "no_frames"
    assert kind_of([]) == kind_of(np.zeros((0, 4, 4, 3), np.uint8)) == "no_frames"
    assert kind_of([encode(picture(1)), b"no picture"]) == "not_an_image"
    assert kind_of([encode(picture(1, 10, 10)), encode(picture(1, 10, 12))]) == "mixed_sizes"
    assert sniff(io.BytesIO(film("mpegts"))) == "mpegts"


@pytest.mark.parametrize("path", ["a\0b.mp4", "\ud800.mp4", "a" * 5000, "tests/data/films.py/clip.mp4", ""])
def test_odd_paths_are_missing_videos(path, tmp_path):
    assert kind_of(path) == kind_of([path]) == "missing_video"
    assert kind_of([str(tmp_path)]) == "missing_video"  # a folder where a picture should be


def test_no_file_stays_open(tmp_path, monkeypatch):
    contents = {"a.mp4": film(), "b.gif": animation("GIF"), "c.webm": b"junk", "d.png": encode(pixels(0))}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    files, one = [], open

    def watched(path, *args, **kwargs):
        files.append((str(path), one(path, *args, **kwargs)))
        return files[-1][1]

    monkeypatch.setattr("builtins.open", watched)
    *paths, picture_path = [str(tmp_path / name) for name in contents]
    assert [kind_of(value) for value in [*paths, [picture_path]]] == ["", "", "unsupported_video", ""]
    monkeypatch.undo()
    found = [(path, file.closed) for path, file in files if path in (*paths, picture_path)]
    assert set(found) == {(path, True) for path in (*paths, picture_path)}


def test_limits_are_kept():
    small = dataclasses.replace(SMALL, max_pixels=48 * 64 - 1)
    for value in (film(), film("webm"), animation("GIF"), [encode(pixels(0))]):
        assert kind_of(value) == "" and kind_of(value, small) == "absurd_dimensions"
    assert kind_of(np.zeros((4, 48, 64, 3), np.uint8), small) == "absurd_dimensions"
    for shape in ((4, 0, 5, 3), (4, 5, 0, 3)):
        assert kind_of(np.zeros(shape, np.uint8)) == "absurd_dimensions"
    short = dataclasses.replace(SMALL, max_seconds=3.0)
    for value in (film(), animation("GIF"), animation("WEBP"), animation("PNG"), animation("AVIF")):
        assert kind_of(value) == "" and kind_of(value, short) == "absurd_duration"


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_not_decoded_to_know_its_times(format, monkeypatch):
    data = animation(format, duration=tuple(range(40, 40 + 10 * FRAMES, 10)))
    found = open_clip(data).times()
    np.testing.assert_allclose(found, np.cumsum([0.0, *np.arange(4, 3 + FRAMES) / 100]))
    monkeypatch.setattr("mmjax.data.animation._durations", lambda data: [])
    np.testing.assert_allclose(open_clip(data).times(), found)
    monkeypatch.undo()
    monkeypatch.setattr(Animation, "_decoded_durations", lambda self: [][1])
    np.testing.assert_allclose(open_clip(data).times(), found)


def test_a_frame_that_is_larger_than_its_film_says_is_not_decoded():
    buffer, picture_of_600 = io.BytesIO(), encode(np.zeros((600, 600, 3), np.uint8))
    with av.open(buffer, "w", format="avi") as out:
        stream = out.add_stream("png", rate=5)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "rgb24"
        for number in range(3):
            packet = av.Packet(picture_of_600)
            packet.pts = packet.dts = number
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 5), True
            out.mux(packet)
    assert kind_of(buffer.getvalue()) == ""
    with pytest.raises(BadRecord, match="absurd_dimensions") as caught:
        open_clip(buffer.getvalue(), max_pixels=600 * 600 - 1)
    assert "600 x 600" not in caught.value.detail  # which only a decoded frame tells


def test_wrong_settings_and_columns_are_sentences():
    for settings in (
        {"sampling": "unifrom"},
        {"num_frames": 0},
        {"frame_rate": 0.0},
        {"scale": (1.0, 0.5)},
        {"fit": "x"},
    ):
        with pytest.raises(UserError, match="VideoTransform"):
            VideoTransform(**settings)
    with pytest.raises(UserError, match=r"uint8 \[T, H, W, 3\], not uint8 \[4, 4, 3\]"):
        SMALL.prepare({"video": np.zeros((4, 4, 3), np.uint8)}, None)
    with pytest.raises(UserError, match="encoded bytes, a path, a list of pictures or uint8 pixels"):
        SMALL.prepare({"video": np.zeros((2, 4, 4, 3), np.float32)}, None)
    spec = json.loads(json.dumps(CLIP.spec()))
    assert transform_from_spec(spec) == CLIP


@dataclasses.dataclass
class Films:
    """Twelve clips, of which 2, 5 and 8 are damaged."""

    name: str = "films"
    columns: tuple[str, ...] = ("video",)

    def __len__(self):
        return 12

    def read(self, index):
        good = film("webm", 10 + index % 3)
        return {"video": {2: b"", 5: good[: len(good) // 2], 8: b"plain text"}.get(index, good)}

    def label(self, index):
        return f"films/{index}.webm"


def test_a_pipeline_replaces_counts_and_names_damaged_clips(tmp_path):
    log = tmp_path / "bad.jsonl"
    pipeline = Pipeline(Films(), {"video": CLIP}, batch_size=4, max_bad_share=0.5, bad_log=log)
    with_train = pipeline.train()
    seen = np.concatenate([next(with_train).group for _ in range(6)])
    with_train.close()
    assert not {2, 5, 8} & set(seen.tolist())
    masks = np.concatenate([batch.mask for batch in pipeline.eval_batches()])
    assert np.flatnonzero(~masks).tolist() == [2, 5, 8]
    assert pipeline.bad.counts() == {"empty_file": 1, "truncated_video": 1, "unsupported_video": 1}
    named = {json.loads(line)["label"] for line in log.read_text().splitlines()}
    assert named == {"films/2.webm", "films/5.webm", "films/8.webm"}
