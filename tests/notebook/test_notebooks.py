import base64
import io
import os
import pathlib
import shutil

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

from mmjax.core.config import load_config
from mmjax.core.override import override
from mmjax.training.loop import fit

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def execute(path, folder):
    """Runs a notebook in folder and returns it with its outputs; a cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    return nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


def pictures(notebook):
    """Returns the pictures among the outputs as arrays."""
    data = [out.get("data", {}) for cell in notebook.cells for out in cell.get("outputs", [])]
    encoded = [base64.b64decode(found["image/png"]) for found in data if "image/png" in found]
    return [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in encoded]


@pytest.fixture(scope="module")
def trained_sentiment(tmp_path_factory):
    """Returns the workdir of two steps with picture, name and spoken name."""
    folder = tmp_path_factory.mktemp("runs") / "sentiment"
    config = load_config(str(ROOT / "configs" / "sentiment.py:smoke"))
    for assignment in ("duration=2 steps", "optimizer.schedule.warmup=0"):
        override(config, assignment)
    fit(config, folder)
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)


def test_start_runs_and_draws(trained, monkeypatch):
    monkeypatch.setenv("MMJAX_RUN", os.fspath(trained[0]))
    notebook = execute(ROOT / "notebooks" / "01_start.ipynb", ROOT / "notebooks")
    drawn = pictures(notebook)
    assert len(drawn) == 4  # search, similarity, attention twice
    assert all(len(np.unique(picture.reshape(-1, 3), axis=0)) > 100 for picture in drawn)
    text = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert "WARNING" not in text and "There is no run" not in text


def test_why_runs_and_draws(trained, trained_watch, trained_sentiment, monkeypatch):
    monkeypatch.setenv("MMJAX_RUN", os.fspath(trained[0]))
    monkeypatch.setenv("MMJAX_HAR_RUN", os.fspath(trained_watch[0]))
    monkeypatch.setenv("MMJAX_SENTIMENT_RUN", os.fspath(trained_sentiment))
    notebook = execute(ROOT / "notebooks" / "03_why.ipynb", ROOT / "notebooks")
    drawn = pictures(notebook)
    assert len(drawn) == 6  # pairs, one picture with other words, curves, motions, one without gyroscope, emoji
    assert all(len(np.unique(picture.reshape(-1, 3), axis=0)) > 100 for picture in drawn)
    text = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert "WARNING" not in text and "There is no run" not in text


@pytest.mark.slow
def test_start_trains_the_smoke_size_where_there_is_no_run(tmp_path, monkeypatch):
    monkeypatch.delenv("MMJAX_RUN", raising=False)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "notebooks").mkdir()
    notebook = execute(ROOT / "notebooks" / "01_start.ipynb", tmp_path / "notebooks")
    text = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert "There is no run in ../runs/openmoji" in text
    assert len(pictures(notebook)) == 4 and (tmp_path / "runs" / "smoke" / "checkpoints").exists()


@pytest.mark.slow
def test_why_trains_the_smoke_sizes_where_there_are_no_runs(tmp_path, monkeypatch):
    for variable in ("MMJAX_RUN", "MMJAX_HAR_RUN", "MMJAX_SENTIMENT_RUN"):
        monkeypatch.delenv(variable, raising=False)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "notebooks").mkdir()
    notebook = execute(ROOT / "notebooks" / "03_why.ipynb", tmp_path / "notebooks")
    assert len(pictures(notebook)) == 6
    names = ("openmoji", "har", "sentiment")
    assert all((tmp_path / "runs" / f"{name}_smoke" / "checkpoints").exists() for name in names)
