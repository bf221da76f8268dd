"""The command line's evaluate: what it hands on, mistakes as one sentence, and errors that do not hold the others."""

import types

import jax
import pytest

from mmjax import cli
from mmjax.core import distributed
from mmjax.notebook import loaded


@pytest.fixture
def calls(monkeypatch):
    """Every call of load and of its model's evaluate: name -> arguments."""
    found = {}

    def evaluate(*data, **named):
        found["evaluate"] = (*data, named)
        return {"probe/knn/top_1": 0.5}

    def load(directory, **options):
        found["load"] = (directory, options)
        return types.SimpleNamespace(step=7, evaluate=evaluate)

    monkeypatch.setattr(loaded, "load", load)
    monkeypatch.setattr(cli, "quiet_and_cached", lambda: None)  # it sets JAX up for the whole process
    return found


@pytest.mark.parametrize(("words", "step"), [(["--step", "12"], 12), (["--step", "best"], "best"), ([], None)])
def test_evaluate_hands_on_step_and_data(calls, capsys, words, step):
    given = ["--data", "a.csv", "--train-data", "b.csv", "--class-names", "names.txt"]
    assert cli.main(["evaluate", "--run", "runs/x", *given, *words]) == 0
    assert calls["load"] == ("runs/x", {"step": step, "allow": [], "mesh": None})
    assert calls["evaluate"] == ("a.csv", "b.csv", {"class_names": "names.txt", "templates": None})
    output = capsys.readouterr().out
    assert "runs/x, step 7" in output and "50.0 %" in output


def test_evaluate_mistakes_are_sentences(calls, capsys):
    assert cli.main(["evaluate", "--run", "runs/x", "--train-data", "b.csv"]) == 2 and not calls
    assert "mmjax: --train-data needs --data" in capsys.readouterr().err
    assert cli.main(["evaluate", "--run", "runs/x", "--templates", "t.txt"]) == 2 and not calls
    assert "mmjax: --class-names and --templates need --data" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--run", "runs/x", "--step", "bets"])
    assert "'bets' is neither a number nor 'best'" in capsys.readouterr().err


def test_evaluate_joins_the_processes_of_a_job(calls, monkeypatch):
    joined = []
    monkeypatch.setattr(distributed, "join", lambda *given: joined.append(given))
    given = ["--coordinator", "a:1", "--num-processes", "4", "--process-id", "3"]
    assert cli.main(["evaluate", "--run", "runs/x", *given]) == 0
    assert cli.main(["evaluate", "--run", "runs/x", "--distributed"]) == 0
    assert joined == [("a:1", 4, 3, False), (None, None, None, True)]


def failing(error):
    def evaluate(_):
        raise error

    return evaluate


def test_a_device_without_memory_is_a_sentence(calls, monkeypatch, capsys):
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.\nmore")
    monkeypatch.setattr(cli, "evaluate", failing(full))
    assert cli.main(["evaluate", "--run", "r"]) == 2
    told = capsys.readouterr().err
    assert "too little memory (RESOURCE_EXHAUSTED: Out of memory allocating 8589934592 bytes.)" in told
    assert "python -m mmjax plan" in told and "more\n" not in told


def test_any_other_error_of_one_process_does_not_hold_the_others(calls, monkeypatch):
    left = []
    monkeypatch.setattr(distributed, "leave", left.append)
    monkeypatch.setattr(cli, "evaluate", failing(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        cli.main(["evaluate", "--run", "r"])
    assert left == [1]
