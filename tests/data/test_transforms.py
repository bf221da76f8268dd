"""What the image and text transforms make of a record, and that their JSON builds them again."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mmjax.core.errors import UserError
from mmjax.data.codec import decode
from mmjax.data.crops import random_box, resize
from mmjax.data.loading import example_rng
from mmjax.data.source import BadRecord
from mmjax.data.tokenizer import SIGLIP, Tokenizer
from mmjax.data.transforms import ImageTransform, TextTransform, transform_from_spec, transforms_from_spec
from tests.data.memory import encode, picture

IMAGE = ImageTransform(size=16, scale=(0.3, 1.0), flip=True)
TEXT = TextTransform(tokenizer="bytes", context_length=12)


def rng(position: int) -> np.random.Generator:
    return example_rng(0, position, "image")


def test_evaluation_is_without_chance_and_training_depends_on_the_generator_alone():
    record = {"image": encode(picture(0, 40, 50))}
    assert (IMAGE.prepare(record, None) == IMAGE.prepare(record, None)).all()
    assert (IMAGE.prepare(record, rng(1)) == IMAGE.prepare(record, rng(1))).all()
    assert len({IMAGE.prepare(record, rng(position)).tobytes() for position in range(8)}) == 8


@pytest.mark.parametrize(("size", "antialias", "draft"), [(16, False, True), (60, False, False), (16, True, False)])
def test_a_training_crop_is_a_draft_where_aliasing_hides_it(size, antialias, draft):
    transform = ImageTransform(size=size, scale=(0.8, 0.9), antialias=antialias)
    data = encode(picture(0, 40, 50), "JPEG", quality=90)
    top, left, bottom, right = random_box(40, 50, transform.scale, transform.ratio, rng(3))
    crop = decode(data, draft=draft)[top:bottom, left:right]
    expected = resize(crop, (size, size), "bicubic", antialias=antialias, exact=False)
    assert (transform.prepare({"image": data}, rng(3)) == expected).all()


def test_flip_mirrors_half_of_the_pictures():
    plain = dataclasses.replace(IMAGE, flip=False)
    record = {"image": encode(picture(0, 40, 50))}
    mirrored = 0
    for position in range(64):
        a, b = IMAGE.prepare(record, rng(position)), plain.prepare(record, rng(position))
        assert (a == b).all() or (a == b[:, ::-1]).all()
        mirrored += not (a == b).all()
    assert 16 < mirrored < 48


def test_bytes_and_pillow_images_meet_in_evaluation():
    image = Image.fromarray(picture(4, 30, 44))
    for kind in (image, image.convert("RGBA"), image.convert("L"), image.convert("P")):
        expected = IMAGE.prepare({"image": encode(kind)}, None)
        assert expected.shape == (16, 16, 3) and (IMAGE.from_pil(kind) == expected).all()


def test_collating_leaves_missing_modalities_masked():
    stream = IMAGE.collate([np.ones((16, 16, 3), np.uint8), None])
    assert stream.values.dtype == np.uint8 and stream.mask.tolist() == [[True], [False]]
    assert stream.values[1].sum() == 0
    text = TEXT.collate(["hi", None])
    assert text.mask.tolist() == [[True] * 4 + [False] * 8, [False] * 12] and text.values[1].sum() == 0


@pytest.mark.parametrize("transform", [IMAGE, TEXT])
def test_streams_are_as_out_spec_says(transform):
    record = {"image": encode(picture(0)), "caption": ["A b"]}
    stream = transform.collate([transform.prepare(record, rng(0)), transform.prepare(record, None)])
    for name, (shape, dtype) in transform.out_spec().items():
        array = getattr(stream, name)
        assert array.shape == (2, *shape) and array.dtype == dtype


def test_captions_are_cleaned_and_drawn_uniformly():
    record = {"caption": ["  Ein   ROTES\nHerz ", "", "two", "   "]}
    assert TEXT.captions(record) == ["ein rotes herz", "two"]
    assert TEXT.prepare(record, None) == "ein rotes herz"
    drawn = [TEXT.prepare(record, example_rng(0, position, "text")) for position in range(200)]
    assert set(drawn) == {"ein rotes herz", "two"} and 70 < drawn.count("two") < 130
    kept = dataclasses.replace(TEXT, lowercase=False, clean=False)
    assert kept.captions(record) == ["  Ein   ROTES\nHerz ", "two"]


@pytest.mark.parametrize("value", ["One", b"One", ["One"], np.array([b"One"], object), ("One", b"two")])
def test_kinds_of_caption_columns(value):
    assert TEXT.captions({"caption": value})[0] == "one"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([], "empty_caption"),
        ("", "empty_caption"),
        ([" \n", ""], "empty_caption"),
        (None, "missing_value"),
        (b"\xff\xfe", "bad_encoding"),
        ("\ud800", "bad_encoding"),
    ],
)
def test_unusable_captions_are_bad_records(value, kind):
    with pytest.raises(BadRecord) as error:
        TEXT.prepare({"caption": value}, None)
    assert error.value.kind == kind


def test_unusable_pictures_are_bad_records_and_wrong_columns_mistakes():
    for value, kind in ((b"", "empty_file"), (None, "missing_value"), (b"no picture", "not_an_image")):
        for generator in (None, rng(0)):
            with pytest.raises(BadRecord) as error:
                IMAGE.prepare({"image": value}, generator)
            assert error.value.kind == kind
    small = dataclasses.replace(IMAGE, max_pixels=99)
    with pytest.raises(BadRecord, match="absurd_dimensions"):
        small.prepare({"image": encode(picture(0, 10, 10))}, None)
    with pytest.raises(UserError, match="must hold encoded image bytes, not str"):
        IMAGE.prepare({"image": "a/path.jpg"}, None)
    with pytest.raises(UserError, match=r"no column 'image'\. Did you mean 'images'"):
        IMAGE.prepare({"images": b""}, None)


def test_a_recipe_replaces_the_tokenizers_special_tokens():
    siglip = TextTransform(tokenizer="bytes", context_length=4, special=SIGLIP)
    stream = siglip.from_texts(["A", "ABCDE"])
    assert stream.values.tolist() == [[100, 1, 1, 1], [100, 101, 102, 1]] and stream.mask.all()
    assert transform_from_spec(json.loads(json.dumps(siglip.spec()))) == siglip
    with pytest.raises(UserError, match="for a tokenizer that is named"):
        TextTransform(special=SIGLIP)


def test_specs_are_json_and_build_the_same_transforms():
    text = TEXT.with_tokenizer(Tokenizer.train_bpe(["a cat", "a dog"], 300))
    spec = json.loads(json.dumps({"image": IMAGE.spec(), "text": text.spec()}))
    assert {"size", "mean", "std", "interpolation", "antialias", "fit"} <= spec["image"].keys()
    assert {"tokenizer", "context_length", "lowercase", "clean"} <= spec["text"].keys()
    again = transforms_from_spec(spec)
    assert again == {"image": IMAGE, "text": text}
    assert (again["text"].from_texts(["A  Cat"]).values == text.collate(["a cat"]).values).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "os.system"}, "not among the allowed imports"),
        ({"type": "mmjax.data.text.Gone"}, "no transform 'mmjax.data.text.Gone'"),
        ({"type": "mmjax.data.text.as_text"}, "not a transform"),
        ({"type": "mmjax.core.types.Stream"}, "not a transform"),
        (IMAGE.spec() | {"sise": 3}, "no setting 'sise'. Did you mean 'size'"),
    ],
)
def test_a_spec_cannot_build_anything_else(spec, message):
    with pytest.raises(UserError, match=message):
        transform_from_spec(spec)


def test_wrong_settings_are_sentences():
    for settings in ({"interpolation": "bicubik"}, {"fit": "crop"}, {"scale": (1.0, 0.5)}, {"size": 0}):
        with pytest.raises(UserError, match="ImageTransform"):
            ImageTransform(**settings)
    with pytest.raises(UserError, match="at least 2"):
        TextTransform(context_length=1)
    with pytest.raises(UserError, match="has no tokenizer"):
        TextTransform().collate(["a"])
