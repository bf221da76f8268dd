"""The configs of other modalities than pictures and text: their smoke sizes train and evaluate, on few records."""

import dataclasses
import importlib.util
import io
import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

import mmjax
from benchmarks.studies import STUDIES
from benchmarks.study import configured
from mmjax.core.config import construct, load_config
from mmjax.core.errors import UserError
from mmjax.core.override import override
from mmjax.data.datasets import digits, ecg, emoji_ranking, har, lidar, openmoji
from mmjax.notebook.why_report import attribution_report
from mmjax.training.loop import fit

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module", autouse=True)
def few(tmp_path_factory):
    """Lets every builder make few records, in a folder of this module."""
    names, joined = openmoji._names, emoji_ranking.joined
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
        patch.setattr(openmoji, "_names", lambda emoji: dict(sorted(names(emoji).items())[1000:1040]))
        patch.setattr(ecg, "PATIENTS", {"train": range(3), "test": range(3, 5)})
        patch.setattr(lidar, "SPLITS", {"train": 20, "test": 10})
        numbers = {"train": range(20), "test": range(1787, 1797)}
        patch.setattr(digits, "numbers_of", lambda split, count: numbers[split])
        patch.setattr(emoji_ranking, "joined", lambda modules: joined(modules)[::15])
        yield


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("sentiment", "score/image+text/correlation"),
        ("har", "held_out/accelerometer/accuracy"),
        ("action", "held_out/all/weighted_f1"),
        ("ecg", "leads/lost 92 %/accuracy"),
        ("lidar", "points/lost 90 %/accuracy"),
        ("fusion_study", "held_out/audio/accuracy"),
        ("bind", "text_audio/text_to_audio/recall_at_1"),
        ("colearn", "held_out/all/accuracy"),
        ("image_codes", "held_out/codes_used"),
        ("flava", "probe_joint/linear/top_1"),
        ("semi_paired", "text_image/mean_recall_at_1"),
    ],
)
def test_smoke_sizes_train_and_evaluate(name, metric, tmp_path):
    config = load_config(f"{CONFIGS / name}.py:smoke")
    for assignment in ("duration=4 steps", "data.batch_size=8"):
        override(config, assignment)
    metrics = fit(config, tmp_path, Console(file=io.StringIO()))
    assert metric in metrics and all(np.isfinite(value) for value in metrics.values())
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(attribution_report(tmp_path)) == ("why" in config.evaluations)
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses and np.isfinite(losses).all() and records[-2].get("skipped", 0) == 0


def test_flava_predicts_the_codes_of_a_tokenizer_that_was_trained(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("flava_config", CONFIGS / "flava.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "flava_config", module)  # where its dataclasses look
    spec.loader.exec_module(module)
    monkeypatch.setitem(module.SIZES, "smoke", dataclasses.replace(module.SIZES["smoke"], codes="smoke"))
    tokenizer, config = load_config(f"{CONFIGS / 'image_codes'}.py:smoke"), module.get_config("smoke")
    config.teachers["codes"].path = str(tmp_path / "codes")
    for each, folder in ((tokenizer, "codes"), (config, "flava")):
        for assignment in ("duration=2 steps", "data.batch_size=8", "evaluations={}"):
            override(each, assignment)
        fit(each, tmp_path / folder, Console(file=io.StringIO()))
    first = json.loads((tmp_path / "flava" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["mim/loss"] == pytest.approx(np.log(tokenizer.task.codebook_size), rel=0.02)
    codes, taught = mmjax.load(tmp_path / "codes").params, mmjax.load(tmp_path / "flava").params["teachers_codes"]
    jax.tree.map(np.testing.assert_array_equal, codes, taught)  # the tokenizer stays as it was trained


@pytest.mark.parametrize("name", STUDIES)
def test_every_run_of_a_study_can_be_built(name):
    study = STUDIES[name]
    for run in study.runs:
        construct(configured(study, run, seed=0, smoke=False).model)


def test_a_loaded_run_predicts_from_what_there_is(tmp_path):
    config = load_config(f"{CONFIGS / 'har'}.py:smoke")
    for assignment in ("duration=2 steps", "data.batch_size=8", "evaluations={}"):
        override(config, assignment)
    fit(config, tmp_path, Console(file=io.StringIO()))
    run, source = mmjax.load(tmp_path, batch_size=8), har.BasicMotionsSource("test")
    records = [source.read(index) for index in range(12)]
    sensors = {name: [record[name] for record in records] for name in ("accelerometer", "gyroscope")}
    both = run.predict(**sensors)["label"]
    assert both.shape == (12, 4) and both.dtype == np.float32
    alone = run.predict(gyroscope=sensors["gyroscope"])["label"]
    some = run.predict(accelerometer=[None, *sensors["accelerometer"][1:]], gyroscope=sensors["gyroscope"])["label"]
    np.testing.assert_allclose(some, np.concatenate([alone[:1], both[1:]]), rtol=0, atol=1e-5)
    assert np.abs(alone - both).max() > 1e-3
    with pytest.raises(UserError, match="as many values"):
        run.predict(accelerometer=[], gyroscope=sensors["gyroscope"])
    with pytest.raises(UserError, match="Did you mean 'gyroscope'"):
        run.predict(gyroscop=sensors["gyroscope"])
    with pytest.raises(UserError, match="input 0 cannot be used"):
        run.predict(gyroscope=[np.zeros((10, 7))])
