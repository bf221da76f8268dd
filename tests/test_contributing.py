"""The example of CONTRIBUTING.md works: its blocks, taken for the files they name, train together."""

import io
import pathlib
import re
import sys
import types

import jax
import numpy as np
import pytest
from rich.console import Console

from mmjax.data.source import BadRecord
from mmjax.training.checkpoint import Checkpoints
from mmjax.training.loop import fit

TEXT = (pathlib.Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", TEXT, flags=re.DOTALL))


@pytest.fixture
def files(monkeypatch):
    """Returns dotted name -> module of every block, importable under that name."""
    found = {}
    for path, source in BLOCKS.items():
        name = path.removesuffix(".py").replace("/", ".")
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, path, "exec"), module.__dict__)
        found[name] = module
    return found


@pytest.fixture
def recordings(tmp_path):
    """Returns a folder of 12 recordings, some longer and some shorter than the window."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        np.save(folder / f"{number:02d}.npy", rng.normal(size=(10 + 2 * number, 3)).astype(np.float32))
        (folder / f"{number:02d}.txt").write_text(f"motion {number}\n")
    return folder


def test_every_kind_of_file_has_a_block():
    kinds = {path.rsplit("/", 1)[0] for path in BLOCKS}
    kinds |= {path for path in BLOCKS if path == "mmjax/data/motion.py"}
    assert kinds == {
        "mmjax/data/sources",
        "mmjax/data",
        "mmjax/data/motion.py",
        "mmjax/encoders",
        "mmjax/fusion",
        "mmjax/losses",
        "mmjax/tasks",
        "mmjax/evaluation",
        "configs",
    }


def test_it_trains_evaluates_and_saves(files, recordings, tmp_path):
    config = files["configs.motion"].get_config(str(recordings))
    metrics = fit(config, tmp_path / "run", Console(file=io.StringIO()))
    assert 0 < metrics["held_out/distance"] < 4
    checkpoints = Checkpoints(tmp_path / "run")
    assert checkpoints.steps() == [2]
    assert checkpoints.meta()["preprocess"]["motion"]["length"] == 16
    checkpoints.close()


def test_the_source_names_a_broken_file(files, recordings):
    (recordings / "03.npy").write_bytes(b"")
    source = files["mmjax.data.sources.motion"].MotionFolder(str(recordings))
    assert source.read(0)["caption"] == ["motion 0"]
    with pytest.raises(BadRecord, match=r"03\.npy"):
        source.read(3)


def test_the_transform_pads_and_says_what_is_missing(files):
    transform = files["mmjax.data.motion"].MotionTransform(length=4, channels=1)
    long, short = np.arange(8.0)[:, None], np.arange(2.0)[:, None]
    stream = transform.collate([transform.prepare({"motion": m}, None) for m in (long, short)] + [None])
    np.testing.assert_array_equal(stream.values[..., 0], [[2, 3, 4, 5], [0, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(stream.mask.sum(axis=1), [4, 2, 0])


def test_the_loss_has_its_value_and_lets_no_masked_row_through(files):
    hinge = files["mmjax.losses.hinge"].hinge_contrastive
    a = np.array([[1, 0], [0, 1], [np.nan, np.nan]], np.float32)
    b = np.array([[0.6, 0.8], [0, 1], [np.nan, np.nan]], np.float32)
    group, mask = np.arange(3), np.array([True, True, False])
    # Scores: a0b0 0.6, a0b1 0, a1b0 0.8, a1b1 1; with margin 0.3 only b0 -> a1 (0.5) and a1 -> b0 (0.1) cost.
    np.testing.assert_allclose(hinge(a, b, margin=0.3, group=group, mask=mask), [0.5, 0.1, 0], rtol=0, atol=1e-6)
    gradient = jax.grad(lambda a: hinge(a, b, margin=0.3, group=group, mask=mask).sum())(a)
    assert np.isfinite(gradient).all() and not gradient[2].any()
