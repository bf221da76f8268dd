"""The log-mel frontend against librosa, and against Kaldi's filter bank written out in numpy."""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.layers.mel import AstMel, LogMel
from mmjax.layers.mel_filters import mel_filters, window
from tests.quick import FULL

RATE = 16_000
RNG = np.random.default_rng(0)
TIME = np.arange(6400) / RATE
SOUND = (0.4 * np.sin(2 * np.pi * (300 + 2000 * TIME) * TIME) + 0.05 * RNG.standard_normal(6400)).astype(np.float32)
CLIPS = np.stack([SOUND, 0.1 * SOUND[::-1]])
ALL = np.ones(CLIPS.shape, bool)


def run(mel: LogMel, values, mask=None):
    """Returns the log-mel and its mask as numpy arrays."""
    mask = np.ones(values.shape, bool) if mask is None else mask
    found = jax.jit(mel, compiler_options=FULL)(jnp.asarray(values), jnp.asarray(mask))
    assert found[0].dtype == jnp.float32 and found[1].dtype == bool
    return jax.tree.map(np.asarray, found)


@functools.lru_cache
def librosa_power(mel: LogMel) -> np.ndarray:
    """Returns librosa's mel power of CLIPS, [B, 1 + S // hop, M]."""
    power = librosa.feature.melspectrogram(
        y=CLIPS,
        sr=mel.sample_rate,
        n_fft=mel.n_fft,
        win_length=mel.win_length,
        hop_length=mel.hop_length,
        pad_mode=mel.pad_mode,
        n_mels=mel.num_mels,
        fmin=mel.fmin,
        fmax=mel.fmax,
        htk=mel.mel_scale == "htk",
        norm="slaney" if mel.unit_area else None,
    )
    return power.transpose(0, 2, 1)


@pytest.mark.parametrize(
    "mel",
    [
        LogMel(log="none"),
        LogMel(log="none", mel_scale="htk", unit_area=False, pad_mode="constant", num_mels=64, fmin=50.0, fmax=7000.0),
        LogMel(log="none", sample_rate=22_050, n_fft=1024, win_length=600, hop_length=250, num_mels=128),
    ],
)
def test_mel_power_equals_librosa(mel):
    found, valid = run(mel, CLIPS)
    expected = librosa_power(mel)[:, : found.shape[1]]
    assert valid.all() and found.shape == (2, -(-6400 // mel.hop_length), mel.num_mels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())
    np.testing.assert_allclose(np.log10(found), np.log10(expected), atol=1e-4)


def test_whispers_features_equal_its_recipe_on_librosas_power():
    found, valid = run(LogMel(), CLIPS)
    log = np.log10(np.maximum(librosa_power(LogMel())[:, :-1], 1e-10))  # Whisper leaves the last frame out
    expected = (np.maximum(log, log.max(axis=(1, 2), keepdims=True) - 8) + 4) / 4
    assert found.shape == (2, 40, 80) and valid.all()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_padded_recording_is_what_whisper_makes_of_one_followed_by_silence():
    padded = np.where(np.arange(6400) < 4000, CLIPS, 0)
    power = librosa.feature.melspectrogram(y=padded, sr=RATE, n_fft=400, hop_length=160, pad_mode="reflect", n_mels=80)
    log = np.log10(np.maximum(power.transpose(0, 2, 1)[:, :-1], 1e-10))
    expected = (np.maximum(log, log.max(axis=(1, 2), keepdims=True) - 8) + 4) / 4
    found, valid = run(LogMel(), np.where(np.arange(6400) < 4000, CLIPS, 9.0), np.arange(6400) < np.array([[4000]] * 2))
    assert valid.sum(axis=1).tolist() == [25, 25] and valid[:, :25].all()
    np.testing.assert_allclose(found[:, :25], expected[:, :25], atol=1e-4)
    assert not found[:, 25:].any()


def kaldi_fbank(samples: np.ndarray, num_mels: int = 128) -> np.ndarray:
    """compute-fbank-feats with --window-type=hanning --dither=0 --use-energy=false, in float64; [frames, num_mels]."""
    rows = []
    for start in range(0, len(samples) - 400 + 1, 160):
        frame = samples[start : start + 400].astype(np.float64)
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        frame = frame * np.hanning(400)
        rows.append(np.abs(np.fft.rfft(np.concatenate([frame, np.zeros(112)]))) ** 2)
    mel = lambda hz: 1127.0 * np.log(1 + hz / 700.0)  # noqa: E731
    low, high = mel(20.0), mel(RATE / 2)
    delta = (high - low) / (num_mels + 1)
    bank = np.zeros((num_mels, 257))
    for number in range(num_mels):
        left, center, right = (low + (number + k) * delta for k in range(3))
        for k in range(256):  # Kaldi leaves out the last bin
            at = mel(k * RATE / 512)
            if left < at < right:
                bank[number, k] = (at - left) / (center - left) if at <= center else (right - at) / (right - center)
    return np.log(np.maximum(np.array(rows) @ bank.T, np.finfo(np.float32).eps))


def test_asts_features_equal_kaldis_filter_bank():
    found, valid = run(AstMel(), CLIPS)
    assert found.shape == (2, 38, 128) and valid.all()
    for row, clip in zip(found, CLIPS, strict=True):
        np.testing.assert_allclose(row, kaldi_fbank(clip), atol=1e-4)


@pytest.mark.parametrize("mel", [AstMel(), LogMel(pad_mode="constant")], ids=["ast", "constant"])
def test_valid_frames_are_those_of_the_recording_alone_whatever_lies_in_the_padding(mel):
    length = 4321
    garbage = np.where(np.arange(6400) < length, CLIPS, np.array([[np.nan], [1e9]])).astype(np.float32)
    found, valid = run(mel, garbage, np.arange(6400) < np.array([[length]] * 2))
    alone, _ = run(mel, CLIPS[:, :length])
    count = alone.shape[1]
    assert valid.sum(axis=1).tolist() == [count] * 2 and valid[:, :count].all()
    np.testing.assert_allclose(found[:, :count], alone, atol=1e-5)
    assert not found[:, count:].any()


@pytest.mark.parametrize("mel", [LogMel(), AstMel()], ids=["whisper", "ast"])
def test_short_recordings_have_a_frame_and_missing_ones_none(mel):
    mask = np.arange(1000) < np.array([[1], [399], [400], [561], [0]])
    values = np.ones((5, 1000), np.float32)
    values[3, 5] = np.nan
    found, valid = run(mel, values, mask)
    expected = [1, 3, 3, 4, 0] if mel.center else [1, 1, 1, 1, 0]  # the NaN is in the first window of the last but one
    assert valid.sum(axis=1).tolist() == expected and np.isfinite(found).all()
    assert run(AstMel(), values[:, :100])[1].shape == (5, 1)


def test_without_center_a_frame_is_valid_where_its_whole_window_is():
    n = np.arange(2495)  # window t is [160 t, 160 t + 400), and there are 14
    cases = [
        (n >= 1000, range(7, 14)),
        ((n < 900) | (n >= 1000), [0, 1, 2, 3, *range(7, 14)]),
        (n != 400, [0, *range(3, 14)]),
        ((n >= 1040) & (n < 1190), [5]),  # no window is whole: the first that they reach
        (n >= 2470, [13]),  # in the last window alone
        (n >= 2480, [0]),  # after every window
        (n < 1190, range(5)),
        (n < 30, [0]),
        (n < 0, []),
    ]
    _, valid = run(AstMel(), np.ones((len(cases), 2495), np.float32), np.stack([mask for mask, _ in cases]))
    assert valid.shape == (9, 14)
    assert [np.flatnonzero(row).tolist() for row in valid] == [[*expected] for _, expected in cases]


def test_int16_is_divided_on_the_device():
    whole = np.round(CLIPS * 2**15).astype(np.int16)
    np.testing.assert_array_equal(run(AstMel(), whole)[0], run(AstMel(), (whole / 2**15).astype(np.float32))[0])


def test_gradients_are_finite_for_silence_and_missing_recordings():
    def total(values):
        return LogMel()(values, jnp.arange(800) < jnp.asarray([[800], [0]]))[0].sum()

    assert np.isfinite(jax.jit(jax.grad(total))(jnp.zeros((2, 800)))).all()


@pytest.mark.parametrize(("scale", "htk"), [("slaney", False), ("htk", True)])
@pytest.mark.parametrize(("unit_area", "norm"), [(True, "slaney"), (False, None)])
def test_filters_equal_librosas(scale, htk, unit_area, norm):
    expected = librosa.filters.mel(sr=RATE, n_fft=400, n_mels=80, fmin=20.0, fmax=7600.0, htk=htk, norm=norm)
    np.testing.assert_allclose(mel_filters(RATE, 400, 80, 20.0, 7600.0, scale, unit_area), expected.T, atol=1e-7)


def test_windows():
    np.testing.assert_allclose(window("hamming", 9, False), np.hamming(9), atol=1e-12)
    np.testing.assert_allclose(window("povey", 9, False), np.hanning(9) ** 0.85, atol=1e-12)
    np.testing.assert_allclose(window("hann", 8, True), np.hanning(9)[:8], atol=1e-12)


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (lambda: LogMel(mel_scale="htc"), r"mel_scale: 'htc' is unknown. Did you mean 'htk'"),
        (lambda: LogMel(log="ln"), "mel.log: 'ln' is unknown"),
        (lambda: LogMel(floor=0.0), "mel.floor=0.0 must be above 0, as log='whisper' takes its logarithm"),
        (lambda: AstMel(floor=-1.0), "mel.floor=-1.0 must be above 0"),
        (lambda: LogMel(n_fft=256), "mel.n_fft=256 must be at least 400"),
        (lambda: LogMel(fmax=9000.0), r"fmax=9000.0 must rise from 0 to half of the sample rate \(8000\)"),
        (lambda: LogMel(window="han"), r"window: 'han' is unknown. Did you mean 'hann'"),
    ],
)
def test_wrong_settings_are_sentences(mel, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(mel(), jnp.zeros((1, 800)), jnp.ones((1, 800), bool))


def test_wrong_shapes_are_sentences():
    with pytest.raises(UserError, match=r"a waveform and a mask \[batch, samples\], got \(2, 6400\) and \(2, 1\)"):
        LogMel()(jnp.asarray(CLIPS), jnp.ones((2, 1), bool))
    with pytest.raises(UserError, match="150 samples cannot be reflected over 200"):
        LogMel()(jnp.zeros((1, 150)), jnp.ones((1, 150), bool))
