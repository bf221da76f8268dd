"""The pictures: what is marked, what is written, and that they are drawn without a display."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from mmjax.core.errors import UserError
from mmjax.notebook.plots import attention_picture, retrieval_picture, similarity_picture

GREEN = np.array([0x12, 0x92, 0x4A])


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(200, 255, (9, 16, 12, 3), np.uint8)  # bright, never the green


def _written(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def _green_pixels(path):
    picture = cv2.imread(str(path))[..., ::-1].astype(int)
    return int(np.sum(np.abs(picture - GREEN).max(axis=-1) < 12))


def test_right_pictures_alone_are_marked(tmp_path, images):
    captions = ["a $5 bill & a $10 bill", "x_1^2 \\frac", "third", "fourth"]
    ranked = np.arange(20).reshape(4, 5) % 9
    none, one = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    one[2, 3] = True
    two = one.copy()
    two[0, 0] = True
    green = []
    for name, correct in (("none", none), ("one", one), ("two", two)):
        path = tmp_path / "new" / f"{name}.png"
        figure = retrieval_picture(path, captions, images, ranked, correct, dpi=60)
        assert isinstance(figure, Figure)
        green.append(_green_pixels(path))
    assert green[0] == 0 and green[1] > 50
    assert green[2] == pytest.approx(2 * green[1], rel=0.2)
    written = _written(figure)
    assert set(captions) <= {text.replace("\n", " ") for text in written}
    assert any("first for 1 and among the first 5 for 2" in text for text in written)


def test_every_thumbnail_is_the_ranked_picture(images):
    ranked = np.random.default_rng(1).integers(0, 9, (13, 5))
    figure = retrieval_picture(None, [f"caption {i}" for i in range(13)], images, ranked, np.zeros((13, 5), bool))
    shown = figure.axes[0].get_images()
    assert len(shown) == 65
    for thumbnail, row in zip(shown, ranked.ravel(), strict=True):
        np.testing.assert_array_equal(thumbnail.get_array(), images[row])
    places = {tuple(np.round(thumbnail.get_extent(), 3)) for thumbnail in shown}
    assert len(places) == 65  # none over another


def test_the_picture_meant_is_shown_where_it_was_missed(images):
    correct = np.array([[False, True], [False, False]])
    figure = retrieval_picture(
        None, ["hit", "miss"], images, [[0, 1], [2, 3]], correct, meant=[1, 7], title="Title", credit="Credit"
    )
    shown = figure.axes[0].get_images()
    assert len(shown) == 5
    np.testing.assert_array_equal(shown[-1].get_array(), images[7])
    assert {"meant", "Title", "1", "2"} <= set(_written(figure))
    assert any(text.endswith("Credit") for text in _written(figure))


def test_thumbnails_keep_their_proportions(images):
    figure = retrieval_picture(None, ["a"], images, [[0]], [[True]])
    left, right, bottom, top = figure.axes[0].get_images()[0].get_extent()
    assert (right - left) / (bottom - top) == pytest.approx(12 / 16)


def test_similarity_has_the_matrix_and_its_values(tmp_path, images):
    similarity = np.random.default_rng(0).normal(size=(3, 9))
    correct = np.eye(3, 9, dtype=bool)
    path = tmp_path / "similarity.png"
    figure = similarity_picture(similarity, ["a", "b", "c"], images, correct=correct, title="T", path=path)
    heat = figure.axes[0].get_images()[0]
    np.testing.assert_allclose(heat.get_array(), similarity, rtol=1e-6)
    written = _written(figure)
    assert all(f"{value:.2f}" in written for value in similarity.ravel())
    assert len(figure.axes[0].get_images()) == 1 + 9
    assert cv2.imread(str(path)).shape[2] == 3


def test_attention_is_brightest_where_the_weights_are():
    image = np.full((40, 60, 3), 100, np.uint8)
    attention = np.zeros((2, 4, 6))
    attention[0, 1, 4] = attention[1, 3, 0] = 1.0
    figure = attention_picture(image, attention)
    picture, mean, *heads = [np.asarray(shown.get_array()) for shown in figure.axes[0].get_images()]
    np.testing.assert_array_equal(picture, image)
    assert mean.shape == image.shape and len(heads) == 2
    for head, (y, x) in zip(heads, ((15, 45), (35, 5)), strict=True):
        bright = head.astype(int).sum(axis=-1)
        assert bright[y, x] > 1.5 * np.median(bright)
        peak_y, peak_x = np.unravel_index(bright.argmax(), bright.shape)
        assert abs(peak_y - y) <= 5 and abs(peak_x - x) <= 5
    assert {"picture", "mean", "head 1", "head 2"} <= set(_written(figure))


def test_user_errors(images, monkeypatch):
    with pytest.raises(UserError, match="2 captions"):
        retrieval_picture(None, ["a", "b"], images, [[0]], [[True]])
    with pytest.raises(UserError, match="rows of it"):
        retrieval_picture(None, ["a"], images, [[9]], [[True]])
    with pytest.raises(UserError, match=r"expected \(1, 9\)"):
        similarity_picture(np.zeros((9, 1)), ["a"], images)
    with pytest.raises(UserError, match=r"attention \[heads, h, w\]"):
        attention_picture(images[0], np.zeros((4, 4)))
    monkeypatch.delitem(sys.modules, "mmjax.notebook.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'mmjax\[demo\]'"):
        attention_picture(images[0], np.zeros((1, 4, 4)))


def test_a_notebook_shows_the_figure_once():
    from IPython.core.formatters import DisplayFormatter

    figure = attention_picture(np.zeros((8, 8, 3), np.uint8), np.ones((1, 2, 2)))
    data, _ = DisplayFormatter().format(figure)
    assert data["image/png"].startswith(b"\x89PNG") and "text/html" not in data


def test_pyplot_is_never_imported(tmp_path):
    code = """
import sys, numpy as np
from mmjax.notebook.plots import retrieval_picture
retrieval_picture(sys.argv[1], ["a"], np.zeros((1, 8, 8, 3), np.uint8), [[0]], [[True]])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True, timeout=120)
    assert (tmp_path / "a.png").stat().st_size > 1000
