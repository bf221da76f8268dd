"""The loop: what a run leaves behind, exact restart, stopping on a signal and on numbers that are not finite."""

import dataclasses
import io
import json
import signal

import fiddle as fdl
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mmjax.core.errors import UserError
from mmjax.core.override import override
from mmjax.core.trees import flatten
from mmjax.data.sources import ManifestSource
from mmjax.tasks.contrastive import Contrastive
from mmjax.training import agreement, loop, stop
from mmjax.training.checkpoint import Checkpoints, InitFrom, Keep
from mmjax.training.loop import fit
from tests.training.tiny import tiny_config


def train(workdir, **settings) -> str:
    console = Console(file=io.StringIO(), width=200)
    fit(tiny_config(**settings), workdir, console)
    return console.file.getvalue()


def losses(workdir) -> dict[int, float]:
    records = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def final(workdir) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in flatten(Checkpoints(workdir).restore_params()).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps that nothing interrupts; all runs of six steps share one compiled step."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train(workdir)


def test_a_run_leaves_metrics_checkpoints_and_what_rebuilds_it(whole):
    workdir, output = whole
    assert list(losses(workdir)) == [1, 2, 3, 4, 5, 6]
    assert Checkpoints(workdir).steps() == [2, 4, 6]
    assert list(workdir.glob("tensorboard/events*"))
    meta = Checkpoints(workdir).meta()
    assert meta["config"] == json.loads((workdir / "config.json").read_text())
    text = meta["preprocess"]["text"]
    assert (text["context_length"], text["lowercase"]) == (8, True) and "red" in text["tokenizer"]
    assert meta["preprocess"]["image"]["size"] == 16
    for words in ("parameters", "initialised from scratch", "step 6/6", "examples/s", "input wait", "ETA"):
        assert words in output


def test_metrics_hold_the_evaluation_and_the_rates(whole):
    records = [json.loads(line) for line in (whole[0] / "metrics.jsonl").read_text().splitlines()]
    assert any("held_out/mean_recall_at_1" in record for record in records)
    for name in ("learning_rate", "logit_scale", "grad_norm", "examples_per_second", "input_wait_share", "skipped"):
        assert name in records[0]
    assert 0 < records[0]["learning_rate"] < 3e-3 or records[0]["learning_rate"] == 0


def test_a_signal_saves_and_the_restart_is_exact(whole, tmp_path, monkeypatch):
    def after_three(self, step, asked, input_wait):
        if step == 2:
            signal.raise_signal(signal.SIGTERM)  # received after the next step
        return asked

    monkeypatch.setattr(agreement.Agreement, "stop", after_three)
    with pytest.raises(stop.Interrupted, match="saved step 3"):
        train(tmp_path)
    assert list(losses(tmp_path)) == [1, 2, 3]
    with (tmp_path / "metrics.jsonl").open("a") as file:  # what a killed run may leave behind
        file.write('{"step": 4, "loss": 99}\n{"step": 5, "lo')
    assert "resumed everything from step 3" in train(tmp_path)
    assert losses(tmp_path) == losses(whole[0])
    expected = final(whole[0])
    for name, leaf in final(tmp_path).items():
        np.testing.assert_array_equal(leaf, expected[name], err_msg=name)


def test_a_finished_run_is_only_evaluated_again(whole):
    before = final(whole[0])
    results = fit(tiny_config(), whole[0], Console(file=io.StringIO()))
    assert "held_out/mean_recall_at_1" in results
    records = [json.loads(line) for line in (whole[0] / "metrics.jsonl").read_text().splitlines()]
    assert sum(record["step"] == 6 and "held_out/mean_recall_at_1" in record for record in records) == 1
    with pytest.raises(UserError, match="at step 6 already, past the 4 steps of duration"):
        fit(tiny_config(duration=4), whole[0], Console(file=io.StringIO()))
    jax.tree.map(np.testing.assert_array_equal, before, final(whole[0]))


def test_init_from_is_not_resume(whole, tmp_path):
    output = train(tmp_path, init_from=fdl.Config(InitFrom, str(whole[0])), duration=2)
    assert "initialised the weights from" in output
    assert losses(tmp_path)[1] < losses(whole[0])[1] and list(losses(tmp_path)) == [1, 2]
    gone = fdl.Config(InitFrom, str(tmp_path / "gone"))
    assert "resumed everything from step 2" in train(tmp_path, init_from=gone, duration=3)


def test_numbers_that_are_not_finite_stop_the_run_with_a_sentence(tmp_path):
    config = tiny_config(duration=12, max_skipped_in_row=3)
    config.optimizer.learning_rate = 1e30
    config.optimizer.schedule.warmup = 0
    with pytest.raises(UserError, match=r"not finite in the last 3 steps.*last good checkpoint is step \d"):
        fit(config, tmp_path, Console(file=io.StringIO()))
    assert all(np.isfinite(leaf).all() for leaf in final(tmp_path).values())


@jax.custom_vjp
def poisoned(values, bad):
    """Returns values; their gradient is NaN where bad is true."""
    return values


poisoned.defvjp(lambda values, bad: (values, bad), lambda bad, ct: (jnp.where(bad, jnp.nan, ct), None))


@dataclasses.dataclass(frozen=True)
class NanGradient(Contrastive):
    """The loss is what it was, its gradient is NaN in every batch that has one of the records."""

    records: tuple[int, ...] = ()

    def loss(self, by_example, shared, batch):
        found = super().loss(by_example, shared, batch)
        bad = jnp.isin(batch.group, jnp.array(self.records)).any()
        return found.replace(values=poisoned(found.values, bad))


def test_gradients_alone_that_are_nan_are_skipped_and_counted_over_a_restart(tmp_path):
    """64 records in batches of 16: record 5 is in one step of four."""
    settings = {"task": fdl.Config(NanGradient, records=(5,)), "evaluations": {}, "max_skipped_in_row": 2}
    for duration in (6, 12):  # the second goes on from the first
        train(tmp_path, duration=duration, **settings)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    skipped = [record["skipped_in_row"] for record in records]
    assert records[-1]["step"] == 12 and records[-1]["skipped"] == 3 == sum(skipped)
    assert [record["grad_norm"] == "nan" for record in records] == [each == 1 for each in skipped]
    assert all(np.isfinite(record["loss"]) for record in records)
    assert all(np.isfinite(leaf).all() for leaf in final(tmp_path).values())


@pytest.mark.slow
def test_gradients_that_stay_nan_stop_the_run_after_n_steps(tmp_path):
    every = fdl.Config(NanGradient, records=tuple(range(64)))
    with pytest.raises(UserError, match=r"^step 4: .*not finite in the last 4 steps.*good checkpoint is step \d"):
        train(tmp_path, duration=12, task=every, evaluations={}, max_skipped_in_row=4)
    fresh = train(tmp_path / "fresh", duration=2, task=every, evaluations={})
    assert "initialised from scratch" in fresh
    for name, leaf in final(tmp_path / "fresh").items():
        np.testing.assert_array_equal(final(tmp_path)[name], leaf, err_msg=name)


def test_a_config_that_does_not_fit_the_checkpoint_says_so(whole):
    config = tiny_config()
    config.model.encoders["text"].width = 64
    with pytest.raises(
        UserError, match=r"(?s)does not fit this config.*20 weights do not fit.*mis-shaped: encoders_text"
    ):
        fit(config, whole[0], Console(file=io.StringIO()))


def test_a_tokenizer_that_is_larger_than_the_table_is_refused(tmp_path):
    config = tiny_config()
    config.model.encoders["text"].vocab_size = 100
    with pytest.raises(UserError, match=r"encoders.text.vocab_size is 100, but the tokenizer of 'text' has \d+ tokens"):
        fit(config, tmp_path, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("duration", "ten epochs", "duration 'ten epochs' is not understood"),
        ("evaluate_every", "10 stpes", "duration '10 stpes' is not understood"),
        ("optimizer.name", "adamx", "optimizer.name: 'adamx' is unknown. Did you mean 'adamw'"),
        ("data.batch_size", 7, "batch size 7 is not divisible"),
        ("mesh.data", 3, "does not fill the 1 devices"),
    ],
)
def test_a_mistake_that_needs_no_data_is_found_before_they_are_opened(tmp_path, path, value, message):
    config = tiny_config()
    config.data.source = fdl.Config(ManifestSource, "no/such/file.csv")
    override(config, f"{path}={value!r}")
    override(config, "micro_batches=2")
    with pytest.raises(UserError, match=message):
        fit(config, tmp_path, Console(file=io.StringIO()))


def test_a_misspelt_metric_to_keep_by_is_refused(tmp_path):
    config = tiny_config()
    config.keep.metric = "heldout/mean_recall_at_1"
    with pytest.raises(UserError, match=r"keep.metric.*Did you mean 'held_out'"):
        fit(config, tmp_path, Console(file=io.StringIO()))


def test_what_is_logged_is_written_before_a_checkpoint_that_follows_it(monkeypatch, tmp_path):
    written, original = [], Checkpoints.save

    def spy(self, state, *args):
        written.append(list(losses(tmp_path)))
        return original(self, state, *args)

    monkeypatch.setattr(Checkpoints, "save", spy)
    train(tmp_path, evaluations={}, log_every=2)
    assert written == [[2], [2, 4], [2, 4, 6]]


def test_the_step_never_waits_for_the_device(monkeypatch, tmp_path):
    """Metrics are read one logged step late: the value that is fetched belongs to a step before the newest."""
    order = []
    original = loop.Delayed.swap

    def spy(self, step, metrics):
        found = original(self, step, metrics)
        order.append((step, found and found[0]))
        return found

    monkeypatch.setattr(loop.Delayed, "swap", spy)
    train(tmp_path, evaluations={}, keep=fdl.Config(Keep, every=100))
    steps = [(1, None), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5)]
    assert order == [*steps, (None, 6), (None, None)]  # the last two are the end's
