"""Evaluations of every kind run on a schedule, and alone with the same numbers; what does not fit is said before."""

import dataclasses
import io
import json

import fiddle as fdl
import jax
import numpy as np
import pytest
from rich.console import Console

from mmjax.core.errors import UserError
from mmjax.core.mesh import make_mesh
from mmjax.data.pipeline import Pipeline
from mmjax.data.targets import LabelTarget
from mmjax.data.transforms import ImageTransform, TextTransform
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.evaluation.probes import ProbeEvaluator, knn_probe
from mmjax.evaluation.retrieval import retrieval
from mmjax.evaluation.zeroshot import ZeroShotEvaluator, class_embeddings, zeroshot_metrics
from mmjax.notebook.loaded import load
from mmjax.training.evaluate import bind, evaluate
from mmjax.training.experiment import Evaluation
from mmjax.training.loop import fit
from tests.devices import run_on_devices, run_on_hosts
from tests.training.tiny import COLOURS, ColourSource, tiny_config


@dataclasses.dataclass(frozen=True)
class Labelled(ColourSource):
    """Squares with labels and no captions; the last has none."""

    columns: tuple[str, ...] = ("image", "label")
    first: int = 100

    def read(self, index):
        record = super().read(index + self.first)
        return {"image": record["image"], "label": COLOURS[index % 4] if index < self.length - 1 else None}


TARGETS = {"label": LabelTarget(classes=COLOURS)}
EMBEDDED = {"image": ImageTransform(size=16), "text": TextTransform(tokenizer="bytes", context_length=8)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns (the loaded run, its metrics by step) of a run with every kind of evaluation."""
    targets = {"label": fdl.Config(LabelTarget, classes=COLOURS)}
    test, train = fdl.Config(Labelled, 23), fdl.Config(Labelled, 60, first=200)
    config = tiny_config(
        duration="2 steps",
        evaluate_every="1 steps",
        evaluations={
            "held_out": fdl.Config(Evaluation, fdl.Config(ColourSource, 24), fdl.Config(RetrievalEvaluator), 16),
            "zeroshot": fdl.Config(Evaluation, test, fdl.Config(ZeroShotEvaluator, COLOURS, ks=(1,)), 16),
            "probe": fdl.Config(Evaluation, test, fdl.Config(ProbeEvaluator), 16, train_source=train),
        },
    )
    config.data.max_bad_share = 0.1
    for name in ("zeroshot", "probe"):
        config.evaluations[name].targets = targets
    workdir = tmp_path_factory.mktemp("run")
    fit(config, workdir, Console(file=io.StringIO()))
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return load(workdir, allow=("tests",)), {r["step"]: r for r in records if "zeroshot/top_1" in r}


def test_every_kind_runs_on_the_schedule_and_alone(run):
    loaded, by_step = run
    assert list(by_step) == [1, 2]
    alone = loaded.evaluate()
    assert {name.split("/")[0] for name in alone} == {"held_out", "zeroshot", "probe"}
    assert {name: by_step[2][name] for name in alone} == pytest.approx(alone, abs=1e-12)


def test_values_are_those_of_the_plain_functions(run):
    loaded, by_step = run
    test, train = Labelled(23), Labelled(60, first=200)
    sets = []
    for source in (train, test):
        records = [source.read(i) for i in range(len(source) - 1)]
        sets += [loaded.encode_image([r["image"] for r in records]), [COLOURS.index(r["label"]) for r in records]]
    assert by_step[2]["probe/knn/top_1"] == knn_probe(*sets)["top_1"]
    classes = class_embeddings(loaded.encode_text, COLOURS)
    expected = zeroshot_metrics(sets[2], classes, sets[3], ks=(1,))
    found = {name: by_step[2][f"zeroshot/{name}"] for name in expected}
    assert found == pytest.approx(expected, abs=1e-12)


def test_every_caption_of_a_record_is_ranked(run):
    loaded, by_step = run
    records = [ColourSource().read(i) for i in range(24)]
    texts = loaded.encode_text([text for record in records for text in record["caption"]])
    images = loaded.encode_image([record["image"] for record in records])
    expected = retrieval(images, texts, np.arange(24), np.repeat(np.arange(24), 2))
    assert {name: by_step[2][f"held_out/{name}"] for name in expected} == pytest.approx(expected, abs=1e-12)


def bound(evaluation: Evaluation):
    mesh = make_mesh(devices=jax.devices()[:1])
    return bind({"e": evaluation}, EMBEDDED, Pipeline, mesh)


def seen_modalities(source) -> list[list[str]]:
    """Returns the modalities of each batch that a retrieval of source embeds."""
    seen = []

    def embed(batch):
        seen.append(sorted(batch.streams))
        return {name: np.eye(8, 4, dtype=np.float32) for name in batch.streams}

    evaluate(bound(Evaluation(source, RetrievalEvaluator(), 8)), embed)
    return seen


def test_one_caption_a_record_needs_one_pass():
    @dataclasses.dataclass(frozen=True)
    class One(ColourSource):
        def read(self, index):
            record = super().read(index)
            return record | {"caption": record["caption"][:1]}

    assert seen_modalities(One(8)) == [["image", "text"]]
    assert seen_modalities(ColourSource(8)) == [["image"], ["text"], ["text"]]


def test_an_evaluator_without_needs_gets_every_modality():
    def evaluator(embed, batches):
        return {"modalities": float(sum(len(batch.streams) for batch in batches))}

    assert evaluate(bound(Evaluation(ColourSource(8), evaluator, 8)), None) == {"e/modalities": 2}


@dataclasses.dataclass(frozen=True)
class Curious:
    """An evaluator that needs what nothing makes."""

    modalities = ("image",)
    needs = {"caption": "text"}  # noqa: RUF012


@pytest.mark.parametrize(
    ("evaluation", "sentence"),
    [
        (Evaluation(Labelled(4), ProbeEvaluator(), targets=TARGETS), "'e': ProbeEvaluator learns from .*train_source"),
        (Evaluation(Labelled(4), RetrievalEvaluator()), "no column 'caption', which the modality 'text' reads"),
        (Evaluation(ColourSource(4), ZeroShotEvaluator(COLOURS), targets=TARGETS), "no column 'label', which the tar"),
        (Evaluation(Labelled(4), ZeroShotEvaluator(COLOURS, names="txt")), r"no modality 'txt'\. Did you mean 'text'"),
        (Evaluation(Labelled(4), Curious()), r"Curious needs 'caption', which .*\. Did you mean 'captions'"),
    ],
)
def test_what_does_not_fit_is_said_before_training(evaluation, sentence):
    with pytest.raises(UserError, match=sentence):
        bound(evaluation)


SHARED = """
import collections, dataclasses, json, threading
import jax, numpy as np
from mmjax.core.mesh import make_mesh
from mmjax.data.pipeline import Pipeline
from mmjax.data.transforms import ImageTransform, TextTransform
from mmjax.evaluation import retrieval
from mmjax.evaluation.evaluator import RetrievalEvaluator
from mmjax.training.evaluate import bind, evaluate
from mmjax.training.experiment import Evaluation
from tests.training.tiny import ColourSource

ranked, count_rivals = [], retrieval.count_rivals

def spy(*args):
    ranked.append(args[-1].size)  # devices that the queries are cut over
    return count_rivals(*args)

retrieval.count_rivals = spy
count, lock = collections.Counter(), threading.Lock()

@dataclasses.dataclass(frozen=True)
class Counted(ColourSource):
    def read(self, index):
        with lock:
            count[index] += 1
        return super().read(index)

mesh = make_mesh()
transforms = {"image": ImageTransform(size=16), "text": TextTransform(tokenizer="bytes", context_length=12)}
evaluations = {"held_out": Evaluation(Counted(22), RetrievalEvaluator(), 8)}
bound = bind(evaluations, transforms, Pipeline, mesh)
count.clear()  # opening looks at a record

def embed(batch):
    flat = {name: stream.values.reshape(len(stream.values), -1) for name, stream in batch.streams.items()}
    draw = {name: jax.random.normal(jax.random.key(0), (x.shape[1], 8)) for name, x in flat.items()}
    return {name: x.astype("float32") @ draw[name] for name, x in flat.items()}

with jax.set_mesh(mesh):
    metrics = evaluate(bound, jax.jit(embed, out_shardings=jax.sharding.NamedSharding(mesh, jax.P(("data", "fsdp")))))
print("found", json.dumps([metrics, sorted(count.elements()), ranked]))
"""


@pytest.mark.slow
def test_two_processes_read_their_parts_and_find_the_same():
    """Of 22 pictures with two captions each: one process reads each 4 times (a count, a picture, two captions)."""
    alone = json.loads(run_on_devices(SHARED, 2).rpartition("found ")[2])
    outputs = [json.loads(out.rpartition("found ")[2].splitlines()[0]) for out in run_on_hosts(SHARED, num_devices=1)]
    assert outputs[0][0] == outputs[1][0] == pytest.approx(alone[0], abs=1e-9)
    first, second = (output[1] for output in outputs)
    assert sorted(first + second) == alone[1]
    assert outputs[0][2] == outputs[1][2] == alone[2] == [2, 2]
    assert len(alone[1]) == 4 * 22
    assert max(len(first), len(second)) <= 0.6 * len(alone[1])


ALONE = """
import json
from mmjax import cli
from mmjax.evaluation import probes, retrieval, zeroshot
from mmjax.notebook.loaded_model import LoadedModel

ranked, found = {}, {}

def spied(name):
    real = getattr(retrieval, name)
    def called(*args):
        ranked.setdefault(name, set()).add(args[-1].size)  # devices that the queries are cut over
        return real(*args)
    setattr(retrieval, name, called)

spied("count_rivals"), spied("best_items")
evaluated = LoadedModel.evaluate

def evaluate(self, *data, **named):
    found.update(evaluated(self, *data, **named))
    return found

LoadedModel.evaluate = evaluate
code = cli.main(["evaluate", "--run", RUN, "--allow-import", "tests"])
print("found", json.dumps([code, found, {name: sorted(sizes) for name, sizes in ranked.items()}]), flush=True)
"""


def test_the_command_evaluates_over_the_devices_of_two_processes(run):
    """Retrieval, zero-shot and probes find what one device finds; each ranks over all four; process 0 prints."""
    loaded, by_step = run
    outputs = run_on_hosts(ALONE.replace("RUN", repr(str(loaded.directory))), num_devices=2)
    for output in outputs:
        code, found, ranked = json.loads(output.rpartition("found ")[2].splitlines()[0])
        assert code == 0 and ranked == {"count_rivals": [4], "best_items": [4]}
        assert found == pytest.approx({name: by_step[2][name] for name in found}, abs=1e-6)
        assert {name.split("/")[0] for name in found} == {"held_out", "zeroshot", "probe"}
    assert ["step 2" in output for output in outputs] == [True, False]
