"""OpenMoji aloud: the splits of OpenMoji, a voice that is held out, columns left out, parts of a mixture."""

import io
import sys

import numpy as np
import pytest
import soundfile

from mmjax.core.errors import UserError
from mmjax.data.audio import AudioTransform
from mmjax.data.datasets import openmoji
from mmjax.data.datasets.openmoji import OpenMojiSource, held_out
from mmjax.data.datasets.spoken_openmoji import HELD_OUT, RATE, SPEAKERS, SpokenOpenMojiSource, spoken
from mmjax.data.image import ImageTransform
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.text import TextTransform
from mmjax.data.text_target import TextTarget


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Builds 30 emoji, of which some are held out."""
    names = openmoji._names
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openmoji, "_names", lambda emoji: dict(sorted(names(emoji).items())[1000:1030]))
        path = str(tmp_path_factory.mktemp("spoken"))
        SpokenOpenMojiSource(data_dir=path)
        OpenMojiSource(data_dir=path)
    return path


def records(source):
    return [source.read(index) for index in range(len(source))]


def test_records_are_those_of_openmoji_with_speech(folder):
    for split, voices in (("train", 2), ("test", 1)):
        source, pictures = (
            SpokenOpenMojiSource(split, takes=voices, data_dir=folder),
            OpenMojiSource(split, data_dir=folder),
        )
        assert len(source) == voices * len(pictures) > 0 and set(source.columns) == {"image", "caption", "audio"}
        known = {record["caption"][0]: record["image"] for record in records(pictures)}
        for record in records(source):
            assert set(record) == set(source.columns) and known[record["caption"][0]] == record["image"]
            assert held_out(record["caption"][0]) == (split == "test")
            samples, rate = soundfile.read(io.BytesIO(record["audio"]), dtype="int16")
            assert rate == RATE and samples.ndim == 1 and 0.2 * RATE < len(samples) < 6 * RATE
            assert np.abs(samples).max() > 3000 and min(abs(int(samples[0])), abs(int(samples[-1]))) > 100


def test_takes_are_one_group_by_different_voices(folder):
    source = SpokenOpenMojiSource("train", takes=2, data_dir=folder)
    count = len(source) // 2
    first, second = source.read(3), source.read(3 + count)
    assert first["caption"] == second["caption"] and first["audio"] != second["audio"]
    assert source.group(3) == source.group(3 + count) == 3
    assert source.label(3 + count) == "spoken_openmoji:train[3] take 1"


def test_the_voice_of_the_test_is_not_in_training():
    said = [spoken(name, "train", take) for name in map(str, range(300)) for take in (0, 1)]
    assert {each.voice.split("+")[1] for each in said} == set(SPEAKERS)
    assert all(a.voice.split("+")[1] != b.voice.split("+")[1] for a, b in zip(said[::2], said[1::2], strict=True))
    assert len({each.rate_wpm for each in said}) > 50 and HELD_OUT not in {each.voice for each in said}
    assert {spoken(name, "test", 0).voice for name in map(str, range(30))} == {HELD_OUT}
    assert spoken("red apple", "train", 1) == spoken("red apple", "train", 1) != spoken("red apple", "train", 0)


def test_parts_of_a_mixture_never_show_text_with_speech(folder):
    parts = [
        InMemory(SpokenOpenMojiSource("train", columns, takes, folder))
        for columns, takes in ((("image", "caption"), 1), (("image", "audio"), 2))
    ]
    transforms = {
        "image": ImageTransform(size=8),
        "text": TextTransform(tokenizer="bytes", context_length=8),
        "audio": AudioTransform(seconds=0.5, sample_rate=RATE),
    }
    pipeline = Pipeline(Mixture(parts, [1, 1]), transforms, 32, targets={"caption": TextTarget()})
    stream, seen = pipeline.train(), []
    for batch in (next(stream), next(stream)):
        there = {name: stream.present for name, stream in batch.streams.items()}
        assert there["image"].all() and not (there["text"] & there["audio"]).any()
        assert there["text"].any() and there["audio"].any() and (there["text"] | there["audio"]).all()
        assert (batch.group[there["text"]] < len(parts[0])).all()  # an emoji of both parts is of two groups
        assert (batch.group[there["audio"]] >= len(parts[0])).all()
        assert (batch.targets["caption"].any(axis=1) == there["text"]).all()
        seen.append(there["text"].sum())
    stream.close()
    assert 16 < sum(seen) < 48


def test_mistakes_are_sentences(folder, monkeypatch, tmp_path):
    for settings, sentence in (
        ({"columns": ("image", "captions")}, r"columns: 'captions' is unknown\. Did you mean 'caption'"),
        ({"columns": ()}, "columns is empty; name some of image, caption, audio"),
        ({"takes": 3}, "takes=3 must be between 1 and 2 of 'train'"),
        ({"takes": 2, "split": "test[:5]"}, "takes=2 must be between 1 and 1 of 'test"),
        ({"split": "valid"}, "no split 'valid'"),
    ):
        with pytest.raises(UserError, match=sentence):
            SpokenOpenMojiSource(**settings, data_dir=folder)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(UserError, match=r"soxr is not installed: pip install 'mmjax\[data\]'"):
        SpokenOpenMojiSource(data_dir=str(tmp_path))
