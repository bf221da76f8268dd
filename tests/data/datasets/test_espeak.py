"""Synthetic speech: the same samples for the same words, from any thread and in any order; mistakes are sentences."""

import concurrent.futures
import sys

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.datasets import espeak
from mmjax.data.datasets.espeak import Utterance, speak, speak_all

WORDS = ("three", "smiling face with smiling eyes", "né")


@pytest.fixture(scope="module")
def spoken():
    return speak_all([Utterance(word, voice) for word in WORDS for voice in ("en-us", "en-gb+f3")])


def test_samples(spoken):
    recordings, rate = spoken
    assert rate == 22050
    assert all(samples.dtype == np.int16 and samples.ndim == 1 for samples in recordings)
    seconds = [len(samples) / rate for samples in recordings]
    assert 0.25 < seconds[0] < 0.7 and 1.0 < seconds[2] < 2.5
    assert all(1000 < samples.std() < 20_000 for samples in recordings)
    assert not np.array_equal(recordings[0], recordings[1])


def test_the_same_words_are_the_same_samples(spoken):
    """In another order, beside other words, in other processes, in several threads at once."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        calls = list(pool.map(lambda word: speak_all([Utterance("other"), Utterance(word, "en-gb+f3")])[0][1], WORDS))
    for found, expected in zip(calls, spoken[0][1::2], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_how_it_is_said_matters():
    how = [{}, {"rate_wpm": 300}, {"pitch": 90}, {"pitch_range": 0}, {"volume": 50}]
    plain, fast, high, monotone, soft = speak_all([Utterance("seven", **settings) for settings in how])[0]
    assert len(fast) < 0.8 * len(plain)
    assert soft.std() == pytest.approx(plain.std() / 2, rel=0.1)
    assert fundamental(high) > 1.2 * fundamental(plain)
    assert not np.array_equal(monotone, plain)


def fundamental(samples, rate=22050):
    """Returns the pitch of the middle of a word in Hz, by autocorrelation."""
    middle = samples[len(samples) // 3 : len(samples) // 3 + 2048].astype(float)
    autocorrelation = np.correlate(middle, middle, "full")[2047:]
    return rate / (np.argmax(autocorrelation[50:400]) + 50)  # 55 to 441 Hz


def test_text_without_words_and_one_voice():
    samples, rate = speak("Hello.", voice="en-us+m3", rate_wpm=160)
    assert rate == 22050 and len(samples) > 4000
    assert speak_all([]) == ([], 22050)


def test_mistakes_are_sentences():
    cases = [
        ({"text": " "}, "must be words to say"),
        ({"text": "a", "voice": "en-uss"}, "no voice 'en-uss'. Did you mean 'en-us'"),
        ({"text": "a", "voice": "en-us+f33"}, "no variant 'f33' of the voice 'en-us'. Did you mean 'f3'"),
        ({"text": "a", "rate_wpm": 20}, "rate_wpm=20 must be between 80 and 450"),
        ({"text": "a", "pitch": 100}, "pitch=100 must be between 0 and 99"),
    ]
    for arguments, sentence in cases:
        with pytest.raises(UserError, match=sentence.replace("+", r"\+")):
            speak(**arguments)
    assert {"en-us", "en-gb", "de"} <= set(espeak.voices()) and {"f3", "m5"} <= set(espeak.variants())


def test_a_missing_package_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"espeakng-loader is not installed: pip install 'mmjax\[data\]'"):
        speak_all([])


def test_a_library_that_does_not_run_is_a_sentence(monkeypatch, tmp_path):
    loader = espeak._loader()
    (tmp_path / "broken.so").write_bytes(b"no library")
    monkeypatch.setattr(loader, "get_library_path", lambda: tmp_path / "broken.so")
    with pytest.raises(UserError, match=r"espeak-ng cannot be run: .*broken\.so"):
        speak_all([])
