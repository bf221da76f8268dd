"""Spoken digits: the splits share nothing, every record is its digit, noise is what was asked for."""

import sys

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmjax.core.errors import UserError
from mmjax.data.audio import AudioTransform
from mmjax.data.datasets import digits
from mmjax.data.datasets.digits import DIGITS, LANGUAGES, SPEAKERS, SpokenDigitsSource, drawn, numbers_of
from mmjax.data.image import ImageTransform
from mmjax.data.pipeline import Pipeline
from mmjax.data.targets import LabelTarget


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Builds 20 pictures for training and 10 for testing."""
    few = {"train": range(20), "test": range(1787, 1797)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "numbers_of", lambda split, count: few[split])
        path = str(tmp_path_factory.mktemp("digits"))
        SpokenDigitsSource(data_dir=path)
    return path


def pixels(record):
    return cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_UNCHANGED)


def test_splits_share_neither_pictures_nor_speakers():
    train, test = numbers_of("train", 1797), numbers_of("test", 1797)
    assert (len(train), len(test)) == (1347, 450) and not set(train) & set(test)
    images = load_digits().images.reshape(1797, -1)
    assert len(np.unique(images, axis=0)) == 1797  # no picture is there twice
    assert not set(SPEAKERS["train"]) & set(SPEAKERS["test"])
    voices = {split: {drawn("one", split, i).voice for i in range(600)} for split in SPEAKERS}
    assert voices["test"] == {f"{accent}+{name}" for accent in LANGUAGES for name in SPEAKERS["test"]}
    assert not voices["train"] & voices["test"] and len(voices["train"]) > 100
    assert drawn("one", "train", 5) == drawn("one", "train", 5) != drawn("one", "train", 6)


def test_records(folder):
    reference = load_digits()
    for split, count in (("train", 20), ("test", 10)):
        source = SpokenDigitsSource(split, data_dir=folder)
        assert len(source) == count and source.classes == {"label": list(DIGITS)}
        for record in (source.read(i) for i in range(count)):
            number = int(record["number"])
            assert set(record) == set(source.columns)
            assert record["label"] == [DIGITS[reference.target[number]]]
            np.testing.assert_allclose(pixels(record), reference.images[number] * 255 / 16, atol=0.5)
            speech = record["audio"]
            assert speech.dtype == np.int16 and 800 < len(speech) <= 6400 and np.abs(speech).max() > 3000
            assert abs(int(speech[0])) > 100 and abs(int(speech[-1])) > 100  # no silence around the word
            assert record["voice"][0].split("+")[1] in SPEAKERS[split]
    assert SpokenDigitsSource("train", limit=3, data_dir=folder).read(2)["number"] >= 0
    assert len(SpokenDigitsSource("train", limit=3, data_dir=folder)) == 3
    assert len(SpokenDigitsSource("train", limit=300, data_dir=folder)) == 20


@pytest.mark.parametrize("snr", [20.0, 0.0, -10.0])
def test_audio_has_the_ratio_that_was_asked_for(folder, snr):
    clean = SpokenDigitsSource(data_dir=folder)
    noisy = SpokenDigitsSource(audio_snr_db=snr, data_dir=folder)
    ratios = []
    for index in range(20):
        speech, found = clean.read(index)["audio"].astype(float), noisy.read(index)["audio"]
        assert found.dtype == np.int16 and found.shape == speech.shape
        scale = (found @ speech) / (speech @ speech)  # what is scaled down is so with the noise
        noise = found - scale * speech
        ratios.append(10 * np.log10(np.mean(np.square(scale * speech)) / np.mean(np.square(noise))))
        assert noisy.read(index)["image"] == clean.read(index)["image"]
    assert np.mean(ratios) == pytest.approx(snr, abs=0.3)  # the noise of one record is not quite at right angles


def test_pictures_have_the_noise_that_was_asked_for(folder):
    clean, noisy = SpokenDigitsSource(data_dir=folder), SpokenDigitsSource(image_noise=0.2, data_dir=folder)
    differences = []
    for index in range(20):
        before, after = pixels(clean.read(index)).astype(float), pixels(noisy.read(index)).astype(float)
        differences.append((after - before)[(before > 100) & (before < 155)])  # where little is clipped
        np.testing.assert_array_equal(clean.read(index)["audio"], noisy.read(index)["audio"])
    assert np.concatenate(differences).std() == pytest.approx(0.2 * 255, rel=0.2)
    assert np.abs(np.mean(np.concatenate(differences))) < 15


def test_noise_is_the_record_s_own(folder):
    """The same at every reading, also of another split of the data set; another one for each record."""
    first, again = (SpokenDigitsSource(audio_snr_db=0, image_noise=0.5, data_dir=folder) for _ in range(2))
    some = SpokenDigitsSource("train[4:]", audio_snr_db=0, image_noise=0.5, data_dir=folder)
    for other, offset in ((again, 0), (some, 4)):
        a, b = first.read(7), other.read(7 - offset)
        np.testing.assert_array_equal(a["audio"], b["audio"])
        assert a["image"] == b["image"]
    noise = [digits.noisy_audio(np.full(100, 1000, np.int16), 0, np.random.default_rng([n, 0])) for n in (1, 2)]
    assert not np.array_equal(*noise)


def test_batches(folder):
    source = SpokenDigitsSource(audio_snr_db=10, image_noise=0.1, data_dir=folder)
    transforms = {"image": ImageTransform(size=16), "audio": AudioTransform("audio", 0.8, 8000, 8000)}
    pipeline = Pipeline(source, transforms, 10, targets={"digit": LabelTarget(classes=DIGITS)})
    batch = next(iter(pipeline.eval_batches()))
    assert batch.streams["image"].values.shape == (10, 16, 16, 3)
    assert batch.streams["audio"].values.shape == (10, 6400)
    assert [DIGITS[i] for i in batch.targets["digit"]] == [source.read(i)["label"][0] for i in range(10)]


def test_mistakes_are_sentences(folder, monkeypatch, tmp_path):
    for settings, sentence in (
        ({"image_noise": -1}, "image_noise=-1 must be at least 0"),
        ({"limit": 0}, "limit=0 must be at least 1"),
        ({"audio_snr_db": float("nan")}, "audio_snr_db=nan must be finite"),
        ({"split": "valid"}, "no split 'valid'"),
    ):
        with pytest.raises(UserError, match=sentence):
            SpokenDigitsSource(**settings, data_dir=folder)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(UserError, match=r"soxr is not installed: pip install 'mmjax\[data\]'"):
        SpokenDigitsSource(data_dir=str(tmp_path))
