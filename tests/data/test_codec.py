"""Pictures of every kind come out right, and damage of every kind is found before training sees it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmjax.data.codec import check_size, decode, on_white, orient, pil_to_rgb
from mmjax.data.crops import central_box, fit, random_box, reduce_box, reduction, resize
from mmjax.data.image_header import read_header
from mmjax.data.source import BadRecord
from tests.data.memory import encode, picture

RGB = picture(1, 60, 90)


def close(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the mean absolute difference in grey levels."""
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_formats_decode_as_pillow_does(format):
    data = encode(RGB, format, **({"lossless": True} if format == "WEBP" else {}))
    image = decode(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert image.dtype == np.uint8 and image.shape == (60, 90, 3)
    assert close(image, expected) <= (1.0 if format == "JPEG" else 0.0)  # two builds of libjpeg round differently


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}])
def test_kinds_of_jpeg(options):
    data = encode(RGB, "JPEG", quality=95, **options)
    assert read_header(data).direct
    assert close(decode(data), RGB) < 3


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpeg(mode):
    data = encode(Image.fromarray(RGB).convert(mode), "JPEG", quality=95)
    assert close(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) <= 1.0


def test_transparent_pixels_are_white():
    rgba = np.dstack([RGB, np.full((60, 90), 255, np.uint8)])
    rgba[:30, :, 3] = 0
    rgba[:, :10, 3] = 128
    image = decode(encode(rgba))
    assert (image[:30, 10:] == 255).all() and (image[30:, 10:] == RGB[30:, 10:]).all()
    expected = RGB[30:, :10] * (128 / 255) + 255 * (127 / 255)
    np.testing.assert_allclose(image[30:, :10], expected, atol=0.51)


def test_grey_with_alpha_and_palette_with_transparency():
    grey = Image.fromarray(np.dstack([RGB[..., 0], np.zeros((60, 90), np.uint8)]), "LA")
    assert (decode(encode(grey)) == 255).all()
    palette = Image.fromarray(RGB).quantize(8)
    for options in ({}, {"transparency": 0}):
        data = encode(palette, "PNG", **options)
        expected = on_white(np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")))
        assert (decode(data) == expected).all()


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_grey_png_depths(bits):
    grey = RGB[..., 0]
    pixels = {1: grey > 128, 8: grey, 16: grey.astype(np.uint16) * 257}[bits]
    image = Image.fromarray(pixels)
    expected = np.where(grey > 128, 255, 0) if bits == 1 else grey
    assert (decode(encode(image)) == expected[..., None]).all()
    assert (pil_to_rgb(Image.open(io.BytesIO(encode(image)))) == expected[..., None]).all()


def rgba_png16() -> bytes:
    """Returns a 2 x 1 RGBA PNG with 16 bits a channel, which Pillow cannot write."""
    row = b"\x00" + struct.pack(">8H", 0x1234, 0x8000, 0xFFFF, 0xFFFF, 0, 0, 0, 0)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 6, 0, 0, 0)), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    body = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_sixteen_bits_with_alpha():
    assert decode(rgba_png16()).tolist() == [[[0x12, 0x80, 0xFF], [255, 255, 255]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(RGB, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    found = decode(data)
    assert found.shape == expected.shape and close(found, expected) <= 1.0


@pytest.mark.parametrize("before", [b"\xff", b"\xff\xe2\xea\x62" + bytes(60000)], ids=["a fill byte", "a profile"])
def test_exif_is_found_behind_other_segments_of_a_jpeg(before):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(RGB, "JPEG", exif=exif)
    found = read_header(data[:2] + 2 * before + data[2:])
    assert (found.orientation, found.height, found.width) == (6, 60, 90)


@pytest.mark.parametrize("cut", [2, 3, 4, 5, 21])
def test_a_jpeg_that_ends_among_its_segments_is_bad(cut):
    with pytest.raises(BadRecord):
        read_header(encode(RGB, "JPEG")[:cut])


def test_a_draft_of_a_jpeg_is_close_and_as_strict():
    data = encode(RGB, "JPEG", quality=90, subsampling=2)
    draft, full = decode(data, draft=True), decode(data)
    assert not (draft == full).all() and close(draft, full) < 3
    with pytest.raises(BadRecord, match="truncated_image"):
        decode(data[: len(data) // 2], draft=True)
    assert (decode(encode(RGB), draft=True) == RGB).all()


def broken_exif() -> dict[str, tuple[bytes, int]]:
    """Returns blocks that Pillow's own `exif_transpose` raises at, and the orientation that can be read in each."""
    turned = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    text_for_a_width = struct.pack(">HHI4s", 0x0100, 2, 4, b"abc")
    head = b"Exif\0\0MM\0*"
    return {
        "a wrong type": (head + struct.pack(">IH", 8, 2) + turned + text_for_a_width + bytes(4), 6),
        "no directory": (head, 1),
    }


@pytest.mark.parametrize("name", list(broken_exif()))
@pytest.mark.parametrize(("format", "mode"), [("WEBP", "RGB"), ("JPEG", "CMYK"), ("JPEG", "RGB"), ("PNG", "RGB")])
def test_broken_exif_is_no_reason_to_refuse_a_picture(name, format, mode):
    exif, orientation = broken_exif()[name]
    image = Image.fromarray(RGB).convert(mode)
    found = decode(encode(image, format, exif=exif))
    assert close(found, orient(decode(encode(image, format)), orientation)) <= 1.0


def damaged() -> dict[str, tuple[bytes, str]]:
    jpeg, png, webp = encode(RGB, "JPEG"), encode(RGB), encode(RGB, "WEBP")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    return {
        "empty": (b"", "empty_file"),
        "jpeg half": (jpeg[: len(jpeg) // 2], "truncated_image"),
        "jpeg without its end": (jpeg[:-2], "truncated_image"),
        "jpeg header": (jpeg[:30], "truncated_image"),
        "jpeg marker": (jpeg[:3], "truncated_image"),
        "png half": (png[: len(png) // 2], "truncated_image"),
        "png without its end": (png[:-12], "truncated_image"),
        "png last byte": (png[:-1], "truncated_image"),
        "png signature": (png[:8], "truncated_image"),
        "png flipped bits": (bytes(flipped), "corrupt_image"),
        "webp half": (webp[: len(webp) // 2], "corrupt_image"),
        "text": (b"<html>404</html>", "not_an_image"),
        "zeros": (bytes(1000), "not_an_image"),
    }


@pytest.mark.parametrize("name", list(damaged()))
def test_damage_is_named(name):
    data, kind = damaged()[name]
    with pytest.raises(BadRecord) as error:
        decode(data)
    assert error.value.kind == kind


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_no_cut_of_a_file_crashes_or_passes_for_whole(format):
    data = encode(RGB, format)
    for length in range(0, len(data) - 2, max(1, len(data) // 60)):
        if format in ("GIF", "TIFF") and length > 0.95 * len(data):
            continue  # what is left out there is no pixel
        with pytest.raises(BadRecord):
            decode(data[:length])


def test_absurd_sizes_are_refused_before_decoding():
    png = bytearray(encode(RGB))
    png[16:24] = struct.pack(">II", 100_000, 100_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(BadRecord) as error:
        check_size(read_header(bytes(png)))
    assert error.value.kind == "absurd_dimensions"
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encode(RGB, "JPEG", exif=exif)
    size = jpeg.index(struct.pack(">HH", 60, 90))
    huge = jpeg[:size] + struct.pack(">HH", 60_000, 60_000) + jpeg[size + 4 :]  # Pillow refuses to open it
    with pytest.raises(BadRecord, match="absurd_dimensions"):
        check_size(read_header(huge))
    for shape, most in (((60, 90), 60 * 90 - 1), ((1, 300), 10**6)):
        with pytest.raises(BadRecord, match="absurd_dimensions"):
            check_size(read_header(encode(np.zeros((*shape, 3), np.uint8))), most)
    check_size(read_header(encode(RGB)), 60 * 90)


def sharp(height: int, width: int) -> np.ndarray:
    """Returns disks and hairlines, which alias where a resize does not filter."""
    y, x = np.mgrid[:height, :width]
    rings = np.sin(np.hypot(y - height / 2, x - width / 2) ** 2 / 90) > 0
    return np.stack([rings * 255, (x // 9 + y // 7) % 2 * 255, (x + y) % 16 * 16], -1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(110, 120), (90, 100), (140, 140), (170, 170), (300, 290)])
def test_shrinking_is_closer_to_pillow_bicubic_than_pillow_bilinear_is(shape):
    image = sharp(*shape)
    reference = resize(image, (60, 60), "bicubic", antialias=True, exact=True).astype(float)
    fast = resize(image, (60, 60), "bicubic", antialias=True, exact=False)
    bilinear = resize(image, (60, 60), "bilinear", antialias=True, exact=True)
    aliased = resize(image, (60, 60), "bicubic", antialias=False, exact=False)
    error, other, worst = (np.square(found - reference).mean() for found in (fast, bilinear, aliased))
    assert error < 1.05 * other and error < 0.5 * worst


def test_resize_shapes_and_identity():
    for exact in (True, False):
        for antialias in (True, False):
            for interpolation in ("bicubic", "bilinear", "area"):
                for size in ((30, 31), (100, 31), (60, 90), (200, 200)):
                    found = resize(RGB, size, interpolation, antialias=antialias, exact=exact)
                    assert found.shape == (*size, 3) and found.dtype == np.uint8
                    assert abs(float(found.mean()) - RGB.mean()) < 3
    assert (resize(RGB, (60, 90), "bicubic", antialias=True, exact=False) == RGB).all()


def test_center_is_clips_recipe_and_squash_is_siglips():
    image = Image.fromarray(sharp(75, 100))
    resized = image.resize((42, 32), Image.Resampling.BICUBIC)
    assert (fit(np.asarray(image), 32, "center", "bicubic", True) == np.asarray(resized)[:, 5:37]).all()
    squashed = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
    assert (fit(np.asarray(image), 32, "squash", "bicubic", True) == squashed).all()


def test_random_boxes_keep_scale_and_ratio():
    areas, ratios = [], []
    for seed in range(300):
        top, left, bottom, right = random_box(200, 300, (0.2, 0.6), (0.5, 2), np.random.default_rng(seed))
        assert 0 <= top < bottom <= 200 and 0 <= left < right <= 300
        areas.append((bottom - top) * (right - left) / 60000)
        ratios.append((right - left) / (bottom - top))
    assert 0.19 < min(areas) < 0.23 and 0.55 < max(areas) < 0.61
    assert 0.49 < min(ratios) < 0.6 and 1.7 < max(ratios) < 2.03


def test_a_box_that_cannot_fit_is_central():
    assert random_box(10, 1000, (0.9, 1.0), (1, 1), np.random.default_rng(0)) == (0, 495, 10, 505)
    assert central_box(1000, 10, (0.5, 2)) == (490, 0, 510, 10)


def test_reduction_leaves_enough_pixels_and_the_same_picture():
    image = picture(3, 480, 640)
    data = encode(image, "JPEG", quality=95)
    assert [reduction((0, 0, side, side), 40) for side in (59, 119, 120, 240, 479, 480)] == [1, 1, 2, 4, 4, 8]
    box = (80, 160, 400, 480)
    whole = resize(decode(data)[80:400, 160:480], (40, 40), "bicubic", antialias=True, exact=False)
    for factor in (2, 4):
        top, left, bottom, right = reduce_box(box, factor)
        crop = decode(data, reduce=factor)[top:bottom, left:right]
        assert crop.shape == (320 // factor, 320 // factor, 3)
        assert close(resize(crop, (40, 40), "bicubic", antialias=True, exact=False), whole) < 1.5
