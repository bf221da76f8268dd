"""Explanations of loaded runs: numbers that add up, what is missing, pictures, the evaluator's metrics."""

import dataclasses
import io
import json
import pathlib

import fiddle as fdl
import jax
import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.core.types import Stream
from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.data.pipeline import Pipeline
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import ImageTransform, TextTransform
from mmjax.decoders.features import Features
from mmjax.decoders.head import Head
from mmjax.encoders.timeseries import SeriesEncoder
from mmjax.evaluation.places import grid_of, spread
from mmjax.evaluation.scores import Cosine, Probability
from mmjax.fusion.late import Late
from mmjax.model import MultimodalModel
from mmjax.notebook.curve_plots import curves_picture
from mmjax.notebook.evaluate import own_evaluations
from mmjax.notebook.explain import _at_parts, _relevancy
from mmjax.notebook.loaded import load
from mmjax.notebook.loaded_model import LoadedModel
from mmjax.notebook.why_plots import why_picture
from mmjax.notebook.why_report import attribution_report
from mmjax.tasks.flava import Flava
from mmjax.training.experiment import Experiment
from tests.devices import run_on_devices
from tests.tasks.flava import LENGTH, MASKING, flava_model, mixed_batch

SENSORS = ("accelerometer", "gyroscope")


@pytest.fixture(scope="module")
def pair(trained):
    """Returns the explanation of a picture and its name, and both."""
    record = OpenMojiSource("test").read(3)
    picture = Image.open(io.BytesIO(record["image"])).convert("RGB")
    run = load(trained[0])
    return run.explain(image=picture, text=record["caption"][0]), picture, record["caption"][0]


@pytest.fixture(scope="module")
def watch(trained_watch):
    run = load(trained_watch[0])
    return run, own_evaluations(run)["held_out"].source.read(0)


def written(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def added(explanation):
    """Returns the sum of all Shapley values."""
    return sum(float(phi.sum()) for phi in explanation.shapley.values())


def test_a_cosine_is_shared_among_patches_and_words(pair):
    found, picture, text = pair
    cosine = found.run.similarity(picture, text)[0, 0]
    assert found.score == Cosine("image", "text") and found.value == pytest.approx(cosine, abs=1e-5)
    assert sum(float(phi.sum()) for phi in found.shapley.values()) == pytest.approx(
        found.value - found.nothing, abs=1e-5
    )
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.nothing not in (0, found.value)  # of a flat picture and an empty text
    assert found.relevancy["image"].shape == (4, 4) and found.relevancy["text"].shape == (16,)
    mask = found.streams["text"].mask[0]
    assert not found.relevancy["text"][~mask].any() and not found.shapley["text"][~mask].any()
    assert found.attended == {"image": True, "text": True}


def test_curves_begin_and_end_alike(pair):
    fall, rise = pair[0].curves("image")
    assert fall.score[0] == pytest.approx(pair[0].value, abs=1e-5) == rise.score[-1]
    assert fall.score[-1] == pytest.approx(rise.score[0], abs=1e-6) and len(fall.score) == 9
    other, _ = pair[0].curves("image", order=-pair[0].relevancy["image"])
    assert np.abs(other.score - fall.score).max() > 1e-4
    with pytest.raises(UserError, match="no 'audio'; it has image, text"):
        pair[0].curves("audio")
    figure = curves_picture({"first": (fall, rise), "second": (other, rise)}, title="T")
    assert [len(axes.lines) for axes in figure.axes[0].child_axes] == [2, 2]


def test_the_picture_has_words_heat_and_shares(pair, tmp_path):
    found, _, text = pair
    figure = why_picture([found, found], ["one", "two"], title="Why", path=tmp_path / "why.png")
    told = written(figure)
    assert {"Why", "one", "two", "image", "text"} <= set(told)
    assert sum(f"{share:.0%}" in line for line in told for share in found.shares.values()) >= 4
    assert "".join(text.lower().split()) in "".join(line.strip() for line in told)
    original, heat = (np.asarray(shown.get_array()) for shown in figure.axes[0].get_images()[:2])
    np.testing.assert_array_equal(original, found.streams["image"].values[0])
    assert heat.shape == original.shape and np.abs(heat.astype(int) - original).max() > 50
    assert (tmp_path / "why.png").stat().st_size > 1000
    with pytest.raises(UserError, match="2 explanations and 1 captions"):
        why_picture([found, found], ["one"])


def test_a_mark_has_no_colour_however_relevant(pair):
    found = pair[0]
    relevancy, stream = found.relevancy["text"].copy(), found.streams["text"]
    ids = stream.values[0][stream.mask[0]]
    relevancy[: len(ids)] = [*range(len(ids) - 1), 100.0]  # the last token, which the tower pools, is a mark
    seen = [bool(found.run.transform("text").tokenizer.decode([i]).strip()) for i in ids]
    figure = why_picture([dataclasses.replace(found, relevancy=found.relevancy | {"text": relevancy})])
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)][-len(ids) :]
    coloured = [patch.get_facecolor()[:3] != (1.0, 1.0, 1.0) for patch in boxes]
    assert sum(seen) > 2 and not seen[-1]
    assert coloured == [see and place != seen.index(True) for place, see in enumerate(seen)]  # the lowest has none


def test_two_sensors(watch):
    run, record = watch
    values = {name: record[name] for name in SENSORS}
    found = run.explain(**values)
    logits = run.predict(**{name: [value] for name, value in values.items()})["label"][0]
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert found.value == pytest.approx(probabilities.max(), abs=1e-5) and found.column == logits.argmax()
    assert found.label.startswith("p(") and found.label[2:-1] in ("standing", "running", "walking", "badminton")
    assert sum(float(phi.sum()) for phi in found.shapley.values()) == pytest.approx(
        found.value - found.nothing, abs=1e-5
    )
    assert {name: values.shape for name, values in found.relevancy.items()} == dict.fromkeys(SENSORS, (10,))
    assert all(values.sum() > 0 for values in found.relevancy.values()) and all(found.attended.values())
    assert f"{found.label} = {found.value:.2f}" in written(found.figure())


def test_a_missing_sensor_has_no_share(watch):
    run, record = watch
    found = run.explain(accelerometer=record["accelerometer"], gyroscope=None)
    assert found.shares == {"accelerometer": 1.0}
    expected = run.predict(accelerometer=[record["accelerometer"]])["label"][0]
    assert found.value == pytest.approx(np.exp(expected).max() / np.exp(expected).sum(), abs=1e-5)
    both = run.explain(**{name: record[name] for name in SENSORS})
    assert "gyroscope: missing" in written(why_picture([both, found]))


def test_evaluator_in_training_and_its_picture(trained_watch):
    folder, metrics = trained_watch
    assert sum(metrics[f"why/{name}/share"] for name in SENSORS) == pytest.approx(1)
    total = sum(metrics[f"why/{name}/shapley"] for name in SENSORS)
    assert total == pytest.approx(metrics["why/all/score"] - metrics["why/none/score"], abs=1e-5)
    (path,) = attribution_report(folder)
    assert path == pathlib.Path(folder) / "attribution.png"
    with Image.open(path) as picture:
        assert min(picture.size) > 500 and len(np.unique(np.asarray(picture))) > 50


def test_no_picture_without_the_evaluator(trained):
    assert attribution_report(trained[0]) == []


@dataclasses.dataclass
class Mine:
    """A score that is no key, as its fields may change."""

    whole: bool = False


def test_mistakes_are_sentences(pair, watch):
    run = pair[0].run
    with pytest.raises(UserError, match="there is no input; give at least one of image, text"):
        run.explain()
    with pytest.raises(UserError, match=r"no modality 'txt'. Did you mean 'text'\?"):
        run.explain(txt="a cat")
    with pytest.raises(UserError, match=r"two modalities of a cosine, not text"):
        run.explain(text="a cat")
    with pytest.raises(UserError, match="the order has 3 numbers, but 'image' has 16 parts"):
        pair[0].curves("image", order=np.arange(3))
    with pytest.raises(UserError, match="the score Mine cannot be hashed"):
        watch[0].explain(score=Mine(), accelerometer=watch[1]["accelerometer"])
    with pytest.raises(UserError, match="the head: 'lable' is unknown"):
        watch[0].explain(score=Probability("lable"), accelerometer=watch[1]["accelerometer"])


@pytest.fixture(scope="module")
def flava():
    """Returns the tiny FLAVA with a joint vector for probes, its parameters drawn so that no head is constant."""
    model, tokenizer = flava_model(), Tokenizer.bytes()
    text = model.encoders["text"].clone(vocab_size=tokenizer.vocab_size)
    model = model.clone(
        encoders={**model.encoders, "text": text}, decoders={"joint_features": Features(), **model.decoders}
    )
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), mixed_batch().streams)["params"])
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: np.float32(rng.normal(0, 0.2, leaf.shape)), shapes)
    transforms = {"image": ImageTransform(size=8), "text": TextTransform(context_length=LENGTH, tokenizer=tokenizer)}
    config = fdl.Config(Experiment, task=fdl.Config(Flava, MASKING), data=fdl.Config(Pipeline))
    mesh = make_mesh(MeshShape(), jax.devices()[:1])
    return LoadedModel(pathlib.Path("none"), 0, config, model, params, transforms, mesh, 4)


@pytest.mark.parametrize("score", [None, Cosine("image", "text")], ids=["usual", "cosine"])
def test_flava_explains_its_matching_and_not_a_vector(flava, score):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3)).astype(np.uint8))
    found = flava.explain(image=picture, text="a cat", score=score)
    assert found.score == (score or Probability("matching", whole=True))
    assert added(found) == pytest.approx(found.value - found.nothing, abs=1e-5) and abs(added(found)) > 1e-3
    assert found.attended == {"image": True, "text": True} and found.relevancy["image"].shape == (2, 2)


def test_a_picture_alone_is_not_asked_whether_it_matches(flava):
    picture = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    for score in (None, Cosine("image", "text")):
        with pytest.raises(UserError, match="that have all its modalities, and this one has no text"):
            flava.explain(image=picture, score=score)


def test_the_tokens_of_channels_are_not_read_as_time():
    """As many tokens as samples: 10 patches of 3 samples in each of 3 channels, of 30 samples."""
    tower = {"width": 8, "depth": 1, "num_heads": 2, "mlp_dim": 16}
    encoder = SeriesEncoder(patch_size=3, channels="separate", pool="mean", **tower)
    model = MultimodalModel({"leads": encoder}, Late(8), {"label": Head(2)})
    stream = Stream(np.random.default_rng(0).normal(size=(1, 30, 3)).astype(np.float32), np.ones((1, 30), bool))
    params = model.init(jax.random.key(0), {"leads": stream})["params"]
    mesh, score = make_mesh(MeshShape(), jax.devices()[:1]), Probability()
    run = LoadedModel(pathlib.Path("none"), 0, fdl.Config(Experiment), model, params, {"leads": None}, mesh, 4)
    tokens = _relevancy(run, score, {"leads": stream}).tokens["leads"][0]
    found = _at_parts(run, {"leads": stream}, "leads", tokens)
    assert len(tokens) == len(found) == 30
    np.testing.assert_allclose(found.reshape(10, 3).sum(axis=1), tokens.reshape(3, 10).sum(axis=0), rtol=1e-4)


def test_tokens_go_to_the_parts_they_are_made_of():
    assert grid_of(16, 32, 32) == (4, 4) and grid_of(17, 32, 32) == (4, 4) and grid_of(8, 16, 32) == (2, 4)
    assert grid_of(7, 32, 32) is None
    changes = np.array([[2.0, 0.0, 1.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    np.testing.assert_allclose(spread(np.array([1.0, 5.0, 2.0, 9.0]), changes), [0.5 + 0.5, 0.5, 1.5])


def test_on_eight_devices_as_on_one(trained_watch, watch):
    run, record = watch
    expected = run.explain(**{name: record[name] for name in SENSORS})
    found = json.loads(
        run_on_devices(f"""
            import json
            from mmjax.core.mesh import MeshShape, make_mesh
            from mmjax.notebook.evaluate import own_evaluations
            from mmjax.notebook.loaded import load

            run = load({str(trained_watch[0])!r}, mesh=make_mesh(MeshShape(data=4, fsdp=2)))
            record = own_evaluations(run)["held_out"].source.read(0)
            found = run.explain(accelerometer=record["accelerometer"], gyroscope=record["gyroscope"])
            tokens = {{name: values.tolist() for name, values in found.relevancy.items()}}
            print(json.dumps([found.value, found.shares, tokens]))
        """).splitlines()[-1]
    )
    assert found[0] == pytest.approx(expected.value, abs=1e-5)
    assert found[1] == pytest.approx(expected.shares, abs=1e-4)
    for name in SENSORS:
        np.testing.assert_allclose(found[2][name], expected.relevancy[name], rtol=1e-3, atol=1e-6)
