"""SeriesTransform: windows, padding, gaps, resampling, channels by name, augmentation, bad records, its spec."""

import json
import tracemalloc

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.pipeline import Pipeline
from mmjax.data.recordings import resample
from mmjax.data.source import BadRecord
from mmjax.data.timeseries import SeriesTransform
from mmjax.data.transforms import transform_from_spec

NAN = np.nan


def ramp(samples: int, channels: int = 3) -> np.ndarray:
    return np.arange(samples)[:, None] + 1000.0 * np.arange(channels)


def record(series, **more):
    return {"series": series, **more}


def test_the_middle_in_evaluation_and_any_place_in_training():
    transform = SeriesTransform(length=8)
    assert transform.prepare(record(ramp(20)), None)[0, 0] == 6
    starts = {int(transform.prepare(record(ramp(20)), np.random.default_rng(i))[0, 0]) for i in range(200)}
    assert starts == set(range(13))
    window = transform.prepare(record(ramp(20)), np.random.default_rng(0))
    assert window.dtype == np.float32
    np.testing.assert_array_equal(window, ramp(20)[int(window[0, 0]) :][:8])


def test_short_and_missing_recordings_are_padded():
    transform = SeriesTransform(length=8)
    stream = transform.collate([transform.prepare(record(ramp(5)), None), None])
    assert stream.values.shape == (2, 8, 3) and stream.values.dtype == np.float32
    np.testing.assert_array_equal(stream.mask, [[True] * 5 + [False] * 3, [False] * 8])
    np.testing.assert_array_equal(stream.values[0, :5], ramp(5))
    assert (stream.values[0, 5:] == 0).all() and (stream.values[1] == 0).all()
    for name, (shape, dtype) in transform.out_spec().items():
        assert getattr(stream, name).shape[1:] == shape and getattr(stream, name).dtype == dtype


def test_a_window_always_holds_something_that_was_measured():
    series = ramp(40)
    series[:38] = NAN
    transform = SeriesTransform(length=4)
    assert transform.prepare(record(series), None)[-1, 0] == 38  # the window that is nearest to the middle
    for rng in (None, *(np.random.default_rng(i) for i in range(20))):
        assert not np.isnan(transform.prepare(record(series), rng)).all()


def test_resampling_keeps_slow_waves_and_removes_fast_ones():
    time = np.arange(1000) / 500.0
    series = np.stack([np.sin(2 * np.pi * 3 * time) + 7, np.sin(2 * np.pi * 180 * time) - 4], axis=1)
    found = resample(series.astype(np.float32), 500.0, 100.0)
    at = np.arange(200) / 100.0
    assert found.shape == (200, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[10:-10, 0], np.sin(2 * np.pi * 3 * at)[10:-10] + 7, atol=0.01)
    np.testing.assert_allclose(found[10:-10, 1], -4, atol=0.02)  # 180 Hz would fold to 20 Hz
    upward = resample(found[:, :1], 100.0, 250.0)
    np.testing.assert_allclose(upward[50:-50, 0], np.sin(2 * np.pi * 3 * np.arange(500) / 250)[50:-50] + 7, atol=0.01)


def test_gaps_stay_gaps_and_do_not_spread():
    series = np.full((100, 2), 5.0, np.float32)
    series[40:60, 0] = NAN
    series[:, 1] = NAN
    found = resample(series, 100.0, 50.0)
    np.testing.assert_array_equal(np.isnan(found[:, 0]), (np.arange(50) >= 20) & (np.arange(50) < 30))
    np.testing.assert_allclose(found[~np.isnan(found[:, 0]), 0], 5.0, atol=1e-5)
    assert np.isnan(found[:, 1]).all()


@pytest.mark.parametrize(
    ("settings", "more"), [({"source_rate": 100.0}, {}), ({"rate_column": "rate", "source_rate": 1.0}, {"rate": 100.0})]
)
def test_the_rate_comes_from_the_settings_or_the_record(settings, more):
    transform = SeriesTransform(length=10, sampling_rate=50.0, **settings)
    window = transform.prepare(record(ramp(100), **more), None)
    assert window.shape == (10, 3)
    np.testing.assert_allclose(window[2:-2, 0], 40 + 2 * np.arange(10)[2:-2], atol=0.05)  # 20 samples of the middle
    short = transform.prepare(record(ramp(10), **more), None)
    assert short.shape == (5, 3)


def test_channels_are_picked_by_name_and_may_be_missing():
    transform = SeriesTransform(length=4, channels=("II", "V1", "I"), channels_column="names")
    window = transform.prepare(record(ramp(4, 2), names=["I", b"II"]), None)
    np.testing.assert_array_equal(window, np.stack([1000 + np.arange(4), np.full(4, NAN), np.arange(4)], axis=1))
    with pytest.raises(BadRecord, match=r"none of its channels \(V5\) is wanted"):
        transform.prepare(record(ramp(4, 1), names=["V5"]), None)


def test_augmentation_is_training_alone():
    series = np.random.default_rng(0).normal(size=(400, 3))
    settings = {"length": 400, "scale": (0.5, 2.0), "jitter": 0.1}
    transform = SeriesTransform(**settings)
    np.testing.assert_array_equal(transform.prepare(record(series), None), series.astype(np.float32))
    found = transform.prepare(record(series), np.random.default_rng(1))
    factor = np.sum(found * series) / np.sum(series * series)
    rest = (found - factor * series) / (factor * series.std(axis=0))
    assert 0.5 < factor < 2 and abs(factor - 1) > 0.01
    np.testing.assert_allclose(rest.std(axis=0), 0.1, rtol=0.15)


@pytest.mark.parametrize(("rate", "speed"), [(None, 2.0), (50.0, 2.0), (50.0, 0.5), (25.0, 1.25)])
def test_a_faster_window_has_faster_waves_and_all_its_samples(rate, speed):
    """At 50 Hz a wave of 4 Hz sounds at 4 * speed, whatever the rate it was recorded at."""
    recorded = rate or 50.0
    wave = np.sin(2 * np.pi * 4.0 * np.arange(400) / recorded)[:, None]
    settings = {} if rate is None else {"sampling_rate": 50.0, "source_rate": rate}
    transform = SeriesTransform(length=100, channels=("x",), speed=(speed, speed), **settings)
    window = transform.prepare(record(wave), np.random.default_rng(0))
    assert window.shape == (100, 1)
    spectrum = np.abs(np.fft.rfft(window[:, 0] * np.hanning(100)))
    assert np.argmax(spectrum) * 50.0 / 100 == pytest.approx(4.0 * speed, abs=0.5)
    plain = transform.prepare(record(wave), None)[:, 0]
    assert np.argmax(np.abs(np.fft.rfft(plain * np.hanning(100)))) * 0.5 == pytest.approx(4.0, abs=0.5)


def test_speeds_differ_from_window_to_window_within_their_bounds():
    transform = SeriesTransform(length=8, channels=("x",), speed=(0.5, 2.0))
    line = np.arange(100.0)[:, None]
    steps = [np.diff(transform.prepare(record(line), np.random.default_rng(i))[2:6, 0]).mean() for i in range(50)]
    assert len({round(step, 3) for step in steps}) > 20
    assert 0.45 < min(steps) < 0.75 and 1.5 < max(steps) < 2.1


def test_a_rotation_turns_threes_alike_and_leaves_gaps():
    series = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    series[7, 1] = NAN
    transform = SeriesTransform(length=50, channels=tuple("abcdef"), rotation=20.0)
    angles = []
    for seed in range(40):
        found = transform.prepare(record(series), np.random.default_rng(seed))
        np.testing.assert_array_equal(found[7, :3], series[7, :3])
        fits = [np.linalg.lstsq(series[8:, i : i + 3], found[8:, i : i + 3], rcond=None)[0] for i in (0, 3)]
        np.testing.assert_allclose(fits[0], fits[1], atol=1e-5)
        np.testing.assert_allclose(fits[0] @ fits[0].T, np.eye(3), atol=1e-5)
        assert np.linalg.det(fits[0]) > 0
        angles.append(np.rad2deg(np.arccos((np.trace(fits[0]) - 1) / 2)))
    assert np.sqrt(np.mean(np.square(angles))) == pytest.approx(20 * np.sqrt(3), rel=0.2)
    np.testing.assert_array_equal(transform.prepare(record(series), None), series)


def test_channel_dropout_leaves_one_that_was_measured():
    series = ramp(8)
    series[:, 0] = NAN
    transform = SeriesTransform(length=8, channel_dropout=0.9)
    kept = np.array([~np.isnan(transform.prepare(record(series), np.random.default_rng(i))).all(0) for i in range(300)])
    assert kept[:, 1:].any(axis=1).all() and not kept[:, 0].any()
    # Chosen to stay in one half of the windows, and kept with a mean probability of 0.55 in the other.
    assert kept[:, 1].mean() == pytest.approx(0.775, abs=0.07)  # three standard deviations
    assert not np.isnan(transform.prepare(record(series), None)[:, 1:]).any()


@pytest.mark.parametrize(
    ("kind", "series"),
    [
        ("wrong_channels", ramp(9, 2)),
        ("wrong_shape", np.arange(9.0)),
        ("wrong_shape", np.array([["a", "b", "c"]])),
        ("wrong_shape", [[1.0, 2.0, 3.0], [1.0, 2.0]]),
        ("non_finite", np.where(ramp(9) == 3, np.inf, ramp(9))),
        ("no_samples", np.zeros((0, 3))),
        ("no_samples", np.full((9, 3), NAN)),
        ("flat_series", np.ones((9, 3)) * [1, 2, NAN]),
        ("missing_value", None),
    ],
)
def test_damage_is_a_bad_record(kind, series):
    with pytest.raises(BadRecord) as caught:
        SeriesTransform(length=4).prepare(record(series), None)
    assert caught.value.kind == kind


@pytest.mark.parametrize("rate", [0.0, -50.0, NAN, np.inf, 1e9, "abc", []])
def test_a_bad_rate_is_a_bad_record(rate):
    transform = SeriesTransform(length=4, sampling_rate=50.0, rate_column="rate")
    with pytest.raises(BadRecord, match="wrong_rate"):
        transform.prepare(record(ramp(9), rate=rate), None)


@pytest.mark.parametrize(("rate", "length"), [(50.0, 2), (500.0, 1)])
def test_one_sample_holds_its_value_at_another_rate(rate, length):
    found = resample(np.full((1, 2), 3.0, np.float32), rate, 100.0)
    np.testing.assert_array_equal(found, np.full((length, 2), 3.0))


def test_odd_rates_cost_no_more_than_others():
    tracemalloc.start()
    found = resample(np.ones((30_000, 1), np.float32), 999_999.9, 100.0)
    assert found.shape == (3, 1) and tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()


@pytest.mark.parametrize(("rate", "target", "length"), [(30_000.0, 10.0, 3), (44_100.0, 100.0, 21), (0.5, 100.0, 600)])
def test_far_rates_and_odd_ratios(rate, target, length):
    series = np.linspace(0, 1, 9000 if rate > 1 else 3, dtype=np.float32)[:, None]
    found = resample(series, rate, target)
    assert len(found) == length
    np.testing.assert_allclose(found[:, 0], np.arange(length) * rate / target / (len(series) - 1), atol=0.02)


def test_a_window_that_loses_its_only_sample_is_missing():
    series = np.full((40, 3), NAN)
    series[[1, 39]] = [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    transform = SeriesTransform(length=4, sampling_rate=25.0, source_rate=100.0, channel_dropout=0.5)
    windows = [transform.prepare(record(series), np.random.default_rng(i)) for i in range(30)]
    gone = np.array([np.isnan(window).all() for window in windows])
    np.testing.assert_array_equal(transform.collate(windows).present, ~gone)
    assert gone.any() and not gone.all()


def test_the_spec_holds_the_metadata_and_builds_the_transform_again():
    transform = SeriesTransform(
        "ecg",
        1000,
        ("I", "II"),
        100.0,
        ("mV", "mV"),
        rate_column="sampling_rate",
        scale=(0.8, 1.2),
        channel_dropout=0.2,
    )
    spec = json.loads(json.dumps(transform.spec()))
    assert spec["channels"] == ["I", "II"] and spec["units"] == ["mV", "mV"] and spec["sampling_rate"] == 100.0
    assert transform_from_spec(spec) == transform


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": "xyz"}, "each once"),
        ({"channels": ("x", "x")}, "each once"),
        ({"units": ("g",)}, "one unit for each of 3 channels"),
        ({"scale": (1.2, 0.8)}, "two rising positive factors"),
        ({"speed": (0.0, 1.0)}, "speed=.*two rising positive factors"),
        ({"channel_dropout": 1.0}, "below 1"),
        ({"length": 0}, "at least 1"),
        ({"rotation": 10.0, "channels": ("x", "y")}, "in threes; 2 are not"),
        ({"sampling_rate": 0.0}, "positive rate"),
        ({"source_rate": 50.0}, "with a sampling_rate alone"),
    ],
)
def test_wrong_settings_are_sentences(settings, message):
    with pytest.raises(UserError, match=message):
        SeriesTransform(**settings)


class Watch:
    """Two sensors whose value is the sample's number, the second with a gap at the start."""

    name, columns = "watch", ("a", "b")

    def __init__(self, gap=0):
        self.gap = gap

    def __len__(self):
        return 32

    def read(self, index):
        series = np.arange(300, dtype=np.float32)[:, None] + 1000.0 * np.arange(3, dtype=np.float32)
        other = series.copy()
        other[: self.gap] = NAN
        return {"a": series, "b": other}

    def label(self, index):
        return f"record {index}"


def drawn_together(gap=0, own=None, other=None, draws_with="watch"):
    """Returns the windows [32, 16, 3] and masks of both sensors."""
    settings = {"length": 16, "draws_with": draws_with}
    transforms = {"a": SeriesTransform("a", **settings | (own or {}))}
    transforms["b"] = SeriesTransform("b", **settings | (own if other is None else other or {}))
    streams = next(Pipeline(Watch(gap), transforms, 32).train()).streams
    return [np.asarray(getattr(streams[name], key)) for name in "ab" for key in ("values", "mask")]


def test_modalities_that_draw_together_stay_in_step():
    chance = {"rotation": 20.0, "scale": (0.5, 2.0), "speed": (0.5, 2.0)}
    a, _, b, _ = drawn_together(own=chance)
    np.testing.assert_array_equal(a, b)
    a, _, b, _ = drawn_together(own=chance, draws_with=None)
    assert not np.allclose(a, b)


def test_a_gap_or_a_rotation_of_one_sensor_moves_nothing_of_the_other():
    a, a_mask, b, b_mask = drawn_together(gap=150, own={})
    assert a_mask.all() and 0 < b_mask.any(axis=1).mean() < 1
    there = ~np.isnan(b) & b_mask[..., None]
    np.testing.assert_array_equal(b[there], a[there])
    assert np.isnan(b[b_mask.any(axis=1)][:, -1]).sum() == 0
    size = {"scale": (0.5, 2.0)}
    a, _, b, _ = drawn_together(own=size | {"rotation": 20.0}, other=size)
    np.testing.assert_allclose(np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1), rtol=1e-5)


def test_jitter_and_dropped_channels_are_each_sensors_own():
    plain, _, _, _ = drawn_together(own={})
    a, _, b, _ = drawn_together(own={"jitter": 0.5})
    assert abs(np.corrcoef((a - plain).ravel(), (b - plain).ravel())[0, 1]) < 0.15
    a, _, b, _ = drawn_together(own={"channel_dropout": 0.9})
    gone = [np.isnan(values).all(axis=1) for values in (a, b)]
    assert gone[0].any() and gone[1].any() and (gone[0] != gone[1]).any()
