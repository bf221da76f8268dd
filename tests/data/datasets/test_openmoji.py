"""OpenMoji: the counts and the split of the issue, the build, and reading it back."""

import hashlib
import sys

import cv2
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.datasets import built, openmoji


@pytest.fixture
def few(monkeypatch):
    """Lets the builder see 40 emoji only."""
    names = openmoji._names

    def first(emoji):
        return dict(sorted(names(emoji).items())[1000:1040])

    monkeypatch.setattr(openmoji, "_names", first)


def test_counts_are_those_of_the_issue(monkeypatch, tmp_path):
    monkeypatch.setattr(openmoji, "_rendered", lambda resvg, path: b"")
    builder = openmoji.OpenMoji(data_dir=str(tmp_path))
    test = dict(builder._generate_examples("test"))
    train = dict(builder._generate_examples("train"))
    assert (len(test), len(train), len(test) + len(train)) == (367, 3370, 3737)
    assert not set(test) & set(train)
    assert all(example["names"][lang] for example in test.values() for lang in openmoji.LANGUAGES)
    names = {example["names"]["en"] for example in (test | train).values()}
    assert len(names) == 3737 and "red apple" in names
    assert not any(":" in name or "_" in name for name in names)


def test_held_out_is_md5_mod_10():
    digest = int(hashlib.md5(b"red apple").hexdigest(), 16)
    assert openmoji.held_out("red apple") == (digest % 10 == 0)
    assert sum(openmoji.held_out(str(i)) for i in range(1000)) == pytest.approx(100, abs=30)


@pytest.mark.parametrize(
    ("hexcode", "tone"),
    [
        ("1F44B", "none"),
        ("1F44B-1F3FB", "light"),
        ("1F9D1-1F3FE-200D-1F680", "medium-dark"),
        ("1F469-1F3FD-200D-1F91D-200D-1F468-1F3FD", "medium"),
        ("1F469-1F3FF-200D-1F91D-200D-1F468-1F3FB", "several"),
    ],
)
def test_skin_tones_are_those_of_the_modifiers(hexcode, tone):
    assert openmoji.skin_tone(hexcode) == tone and tone in openmoji.SKIN_TONES


def test_builds_and_reads_back(few, tmp_path, capsys):
    train = openmoji.OpenMojiSource("train", languages=("en", "de"), data_dir=str(tmp_path))
    test = openmoji.OpenMojiSource("test", data_dir=str(tmp_path))
    assert len(train) + len(test) == 40
    record = train.read(0)
    assert set(record) == set(train.columns) and train.columns[-2:] == ("caption", "skin_tone")
    assert record["caption"] == [*record["caption_en"], *record["caption_de"]]
    pixels = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.shape == (128, 128, 3) and pixels.dtype == np.uint8
    assert (pixels[0, 0] == 255).all() and pixels.std() > 10
    assert [openmoji.held_out(test.read(i)["caption"][0]) for i in range(len(test))] == [True] * len(test)
    assert train.label(3) == "openmoji:train[3]"
    assert sorted(p.name for p in (tmp_path / "openmoji").iterdir()) == ["1.0.0"]  # nothing half-built is left
    assert capsys.readouterr().out == ""  # standard output is the caller's


def test_a_second_process_that_finishes_first_wins(few, monkeypatch, tmp_path):
    build = openmoji.OpenMoji.download_and_prepare
    builds = []

    def late(self, *args, **kwargs):
        generate = self._generate_examples

        def other_first(split):
            if not builds:
                builds.append(split)
                other = openmoji.OpenMoji(data_dir=str(tmp_path), file_format="array_record")
                build(other)
            return generate(split)

        self._generate_examples = other_first
        return build(self, *args, **kwargs)

    monkeypatch.setattr(openmoji.OpenMoji, "download_and_prepare", late)
    source = openmoji.OpenMojiSource("train", data_dir=str(tmp_path))
    assert builds and source.read(0)["caption"]
    assert sorted(p.name for p in (tmp_path / "openmoji").iterdir()) == ["1.0.0"]


def test_data_dir_comes_from_the_environment(few, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert built.built(openmoji.OpenMoji).data_path == tmp_path / "openmoji" / "1.0.0"
    assert (tmp_path / "openmoji" / "1.0.0" / "features.json").exists()


def test_a_missing_package_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError, match=r"resvg_py is not installed: pip install 'mmjax\[demo\]'"):
        openmoji.OpenMojiSource(data_dir=str(tmp_path))


def test_an_unknown_language_is_a_sentence():
    with pytest.raises(UserError, match=r"language 'deu'\. Did you mean 'de'"):
        openmoji.OpenMojiSource(languages=("en", "deu"))
    with pytest.raises(UserError, match="languages is empty"):
        openmoji.OpenMojiSource(languages=())
