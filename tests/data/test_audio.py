"""Recordings of every kind come out right; damage, silence about damage and what is no recording are bad records."""

import dataclasses
import io
import json
import struct

import av
import jax
import numpy as np
import pytest
import soundfile

from mmjax.core.errors import UserError
from mmjax.data.audio_codec import decode, resample
from mmjax.data.audio_header import check_audio
from mmjax.data.loading import example_rng
from mmjax.data.mp3_frames import read_frame
from mmjax.data.pipeline import Pipeline
from mmjax.data.source import BadRecord
from mmjax.data.transforms import AudioTransform, transform_from_spec

RATE = 16_000
NOISE = np.random.default_rng(0)
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) + 0.02 * NOISE.standard_normal(RATE)).astype(np.float32)
KINDS = {
    "wav8": ("WAV", "PCM_U8"),
    "wav16": ("WAV", "PCM_16"),
    "wav24": ("WAV", "PCM_24"),
    "wav_float": ("WAV", "FLOAT"),
    "rf64": ("RF64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
TRANSFORM = AudioTransform(seconds=0.25)


def encode(samples, kind="wav16", rate=RATE) -> bytes:
    """Returns the samples [N] or [N, channels] as a file."""
    buffer, (format, subtype) = io.BytesIO(), KINDS[kind]
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


FILES = {kind: encode(TONE, kind) for kind in KINDS}


def kind_of(data, transform=TRANSFORM, rng=None) -> str:
    """Returns the kind of bad record that the data are, 'fine' where they are none."""
    try:
        transform.prepare({"audio": data}, rng)
    except BadRecord as error:
        assert error.detail.endswith(".")
        return error.kind
    return "fine"


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [(kind, {"wav8": 1 / 128, "wav24": 2**-23, "wav_float": 0.0}.get(kind, 2**-15)) for kind in list(KINDS)[:7]],
)
def test_lossless_formats_give_the_samples_back(kind, tolerance):
    samples, rate = decode(FILES[kind])
    assert rate == RATE and samples.dtype == np.float32 and samples.shape == (RATE,)
    assert np.abs(samples - TONE).max() <= tolerance


@pytest.mark.parametrize("kind", ["ogg", "opus", "mp3"])
def test_lossy_formats_come_close_and_equal_libsndfile(kind):
    samples, _ = decode(FILES[kind])
    assert samples.shape == (RATE,)
    np.testing.assert_allclose(samples, soundfile.read(io.BytesIO(FILES[kind]), dtype="float32")[0], atol=1e-6)
    assert np.corrcoef(samples, TONE)[0, 1] > 0.99


def test_channels_are_averaged_and_rates_resampled():
    left, right = TONE, 0.5 * TONE[::-1]
    np.testing.assert_allclose(
        decode(encode(np.stack([left, right], 1), "wav_float"))[0], (left + right) / 2, atol=1e-7
    )
    for rate in (8000, 22050, 44100, 48000):
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        found = TRANSFORM.prepare({"audio": encode(tone, "wav_float", rate)}, None)
        start = (rate - -(-4000 * rate // RATE)) // 2 / rate  # the centre, in seconds
        expected = 0.5 * np.sin(2 * np.pi * 440 * (start + np.arange(4000) / RATE))
        assert found.shape == (4000,)
        np.testing.assert_allclose(found[200:-200] / 2**15, expected[200:-200], atol=1e-3)
    assert resample(TONE, RATE, RATE) is TONE


def test_sixteen_bits_come_through_unchanged():
    whole = np.arange(-(2**15), 2**15, 8, dtype=np.int16)
    found = AudioTransform(seconds=1.0).prepare({"audio": encode(whole)}, None)
    np.testing.assert_array_equal(found, whole)
    loud = AudioTransform(seconds=1.0).prepare({"audio": encode(np.array([1.5, -1.5]), "wav_float")}, None)
    assert loud.tolist() == [2**15 - 1, -(2**15)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_is_a_bad_record_wherever_it_is_cut(kind):
    data = FILES[kind]
    kinds = {kind_of(data[:length]) for length in range(1, len(data), max(1, len(data) // 60))}
    kinds |= {kind_of(data[:-count]) for count in range(1, 12)}
    assert kinds <= {"truncated_audio", "corrupt_audio", "unsupported_audio"}
    assert "truncated_audio" in kinds or kind == "flac"  # whose decoder does not tell the two apart


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_are_found_where_the_format_has_checksums_and_never_crash(kind):
    data, clean = FILES[kind], decode(FILES[kind])[0]
    for seed in range(60):
        rng, damaged = np.random.default_rng(seed), bytearray(data)
        for place in rng.integers(0, 200 if seed % 2 else len(data), 3):
            damaged[place] ^= int(rng.integers(1, 256))
        try:
            samples, rate = decode(bytes(damaged))
        except BadRecord:
            continue
        assert np.isfinite(samples).all() and rate > 0
        assert kind not in ("flac", "ogg", "opus") or np.array_equal(samples, clean)


def test_damage_outside_of_the_window_is_found():
    data = bytearray(FILES["flac"])
    data[-400] ^= 0xFF
    assert kind_of(bytes(data), AudioTransform(seconds=0.1, crop="start")) == "corrupt_audio"


def video() -> bytes:
    """Returns a small MP4."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", "mp4") as file:
        stream = file.add_stream("mpeg4", 5)
        stream.width = stream.height = 32
        for grey in (0, 99):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), grey, np.uint8), "rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty_file"),
        (b"This is a text file, renamed to .wav\n" * 40, "unsupported_audio"),
        (video(), "unsupported_audio"),
        (np.random.default_rng(0).bytes(9999), "unsupported_audio"),
        (b"\xff\xfb\x90\x00" * 999, "unsupported_audio"),
        (b"ID3\x04\x00\x00\x00\x00\x0f\x76" + bytes(99), "unsupported_audio"),
        (b"fLaC" + bytes(99), "corrupt_audio"),
        (b"RIFF\x00\x00\x00\x00WAVE", "truncated_audio"),
        (encode(np.zeros(0)), "no_samples"),
        (encode(np.array([0.1, np.nan, 0.1]), "wav_float"), "corrupt_audio"),
        (encode(np.array([0.1, -np.inf]), "wav_float"), "corrupt_audio"),
        (encode(np.array([0.0, 20000.0]), "wav_float"), "corrupt_audio"),
        (encode(TONE[:1], rate=48_000), "too_short"),
        (encode(TONE, rate=500), "unsupported_audio"),
    ],
    ids=lambda value: value if isinstance(value, str) else "data",  # a WAV of floats holds the time it was written
)
def test_what_is_no_recording_is_a_bad_record_of_its_kind(data, kind):
    assert kind_of(data) == kind
    assert kind_of(data, rng=np.random.default_rng(0)) == kind


def test_lengths_that_headers_lie_about():
    flac = bytearray(FILES["flac"])
    flac[22:26] = struct.pack(">I", 2 * RATE)  # total samples
    assert kind_of(bytes(flac)) in ("truncated_audio", "corrupt_audio")
    flac[22:26] = bytes(4)
    assert kind_of(bytes(flac)) == "unsupported_audio"  # of unknown length
    wav = bytearray(FILES["wav16"])
    wav[4:8] = wav[40:44] = b"\xff" * 4  # written to a pipe
    np.testing.assert_array_equal(decode(bytes(wav))[0], decode(FILES["wav16"])[0])


def test_durations_have_limits():
    assert kind_of(FILES["wav16"], AudioTransform(max_seconds=0.5)) == "absurd_duration"
    assert kind_of(FILES["ogg"], AudioTransform(min_seconds=1.5)) == "too_short"
    assert kind_of(FILES["mp3"], AudioTransform(min_seconds=1.0, max_seconds=1.0)) == "fine"


def test_an_mp3_of_unstated_length_and_varying_bit_rate_is_read_whole():
    whole = np.concatenate([TONE * 0.01, TONE, 0.3 * NOISE.standard_normal(RATE)])
    data = encode(whole, "mp3")
    stripped = data[read_frame(data, 0).length :]
    samples, first = decode(stripped)[0], decode(data)[0]
    assert len(soundfile.read(io.BytesIO(stripped))[0]) < len(first) < len(samples)  # libsndfile alone guesses
    np.testing.assert_allclose(samples[576 : 576 + 40_000], first[:40_000], atol=1e-6)  # less the encoder's delay
    tagged = b"ID3\x04\x00\x00\x00\x00\x00\x05hello" + data + b"TAG" + bytes(125)
    np.testing.assert_array_equal(decode(tagged)[0], first)
    assert kind_of(stripped[:-9]) == "truncated_audio"


def test_training_windows_are_random_and_evaluation_takes_the_centre_or_the_start():
    data = {"audio": encode(np.arange(RATE, dtype=np.int16))}
    assert TRANSFORM.prepare(data, None).tolist() == list(range(6000, 10_000))
    assert dataclasses.replace(TRANSFORM, crop="start").prepare(data, None)[[0, -1]].tolist() == [0, 3999]
    starts = set()
    for position in range(50):
        window = TRANSFORM.prepare(data, example_rng(0, position, "audio"))
        assert (np.diff(window) == 1).all() and len(window) == 4000
        starts.add(int(window[0]))
    assert len(starts) > 40 and max(starts) > 9000 and min(starts) < 3000


def test_waveforms_in_arrays():
    transform = AudioTransform(seconds=0.25, source_rate=RATE, crop="start")
    half = np.round(TONE * 2**14).astype(np.int16)
    expected = half[:4000]
    for waveform in (half, half.astype(np.int64), half / 2**15, np.stack([half, half], 1)):
        np.testing.assert_array_equal(transform.prepare({"audio": waveform}, None), expected)
    eight = np.array([0, 128, 255], np.uint8)
    assert transform.prepare({"audio": eight}, None).tolist() == [-(2**15), 0, 127 * 256]
    doubled = dataclasses.replace(transform, source_rate=8000).prepare({"audio": half[:100]}, None)
    assert doubled.shape == (200,)
    for waveform, kind in (
        (np.zeros(0), "no_samples"),
        (np.zeros((100, 0)), "no_samples"),
        (np.zeros((0, 2), np.int16), "no_samples"),
        (np.array([0.0, np.nan]), "corrupt_audio"),
        (np.array([0.0, 1e4]), "corrupt_audio"),
        (np.array([0, 2**20]), "corrupt_audio"),
        (np.zeros((2, 2, 2)), "unsupported_audio"),
        (np.array(["a"]), "unsupported_audio"),
        (None, "missing_value"),
    ):
        assert kind_of(waveform, transform) == kind
    with pytest.raises(UserError, match=r"'audio' holds arrays: set AudioTransform\.source_rate"):
        TRANSFORM.prepare({"audio": half}, None)
    with pytest.raises(UserError, match="as bytes, or its samples as an array, not str"):
        TRANSFORM.prepare({"audio": "a/path.wav"}, None)


def test_streams_are_as_out_spec_says_and_settings_round_trip():
    short = TRANSFORM.prepare({"audio": encode(TONE[:3000])}, None)
    stream = TRANSFORM.collate([TRANSFORM.prepare({"audio": FILES["ogg"]}, None), None, short])
    for name, (shape, dtype) in TRANSFORM.out_spec().items():
        assert getattr(stream, name).shape == (3, *shape) and getattr(stream, name).dtype == dtype
    assert stream.mask.sum(axis=1).tolist() == [4000, 0, 3000] and stream.mask[2, :3000].all()
    assert not stream.values[1].any() and not stream.values[2, 3000:].any()
    transform = AudioTransform(seconds=2.5, crop="start", source_rate=22_050)
    assert transform_from_spec(json.loads(json.dumps(transform.spec()))) == transform
    for settings in ({"crop": "middle"}, {"seconds": 0.0}, {"sample_rate": 0}, {"source_rate": 0}):
        with pytest.raises(UserError, match="AudioTransform"):
            AudioTransform(**settings)


@dataclasses.dataclass
class Recordings:
    """A source of recordings, some of them damaged."""

    size: int = 40
    name: str = "recordings"
    columns: tuple[str, ...] = ("audio",)

    def __len__(self) -> int:
        return self.size

    def read(self, index):
        data = encode(TONE[: 2000 + 50 * index], ("wav16", "flac", "ogg", "mp3")[index % 4])
        damaged = {3: data[: len(data) // 2], 6: data[:-7], 8: b"", 20: b"no recording"}
        return {"audio": damaged.get(index, data)}

    def label(self, index) -> str:
        return f"recordings/{index}"


def test_a_pipeline_replaces_counts_and_names_damaged_recordings(tmp_path):
    log = tmp_path / "bad.jsonl"
    pipeline = Pipeline(Recordings(), {"audio": TRANSFORM}, 8, max_bad_share=0.2, bad_log=log)
    batches = pipeline.train()
    groups = np.concatenate([next(batches).group for _ in range(5)])
    assert not {3, 6, 8, 20} & set(groups.tolist())
    assert pipeline.bad.counts() == {"truncated_audio": 2, "empty_file": 1, "unsupported_audio": 1}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["label"] for line in lines} == {f"recordings/{index}" for index in (3, 6, 8, 20)}
    rows = list(pipeline.eval_batches())
    present = np.concatenate([batch.streams["audio"].mask.any(axis=1) for batch in rows])
    assert np.flatnonzero(~present).tolist() == [3, 6, 8, 20]
    assert jax.tree.map(np.shape, rows[0].streams["audio"].values) == (8, 4000)


def test_checking_returns_what_is_to_be_decoded():
    assert check_audio(FILES["ogg"]) is FILES["ogg"] and check_audio(FILES["mp3"]) == FILES["mp3"]
