"""The page of benchmarks: what each says of its goals, what is measured once, and what is measured again."""

import json
import sys

import pytest

from benchmarks import checkpoint, first_step, report, train_step
from benchmarks import input as input_benchmark
from benchmarks.checkpoint import Turn, Written
from benchmarks.input import Measured
from benchmarks.report import BENCHMARKS, Benchmark
from mmjax.core.errors import UserError

SCRIPT = """
import json, pathlib, sys
runs = pathlib.Path(__file__).with_name("runs.txt")
runs.write_text(str(int(runs.read_text()) + 1 if runs.exists() else 1))
row = {"what": "runs", "unit": "times", "ours": int(runs.read_text()), "goal": "≤ 1 times", "reached": True}
pathlib.Path(sys.argv[sys.argv.index("--json") + 1]).write_text(json.dumps([row]))
"""


def kept(rows) -> dict:
    """What `measured` would have kept of some rows."""
    return {
        "code": "", "versions": {"jax": "9.9"}, "peers": {"torch": "8.8"}, "cores": 3, "processor": "P", "load": 0.25,
        "rows": json.loads(json.dumps(list(rows))),
    }  # fmt: skip


def test_the_page_shows_what_each_benchmark_says_of_its_goals():
    loaded = {
        "tar shards": [Measured(rate, 0.1) for rate in (1000, 900, 100)],
        "tar shards, antialias": [Measured(rate, 0.1) for rate in (500, 560, 560)],
        "open_clip": [Measured(200, 0.1, "0.2.86")] * 3,
        "big_vision": [Measured(800, 0.1)] * 3,
    }
    written = Written(1, 2.0, 1.0), Written(1, 5.0, 1.0)
    turns = [Turn([0.1, block], [1.0], 2.0, 1.0, 1, {"save": 1.0, "load": 1.0}, *written) for block in (0.2, 0.31)]
    steps = {"mmjax, one": [1.0, 2.0, 3.0], "mmjax, two": [5.0, 5.0, 5.0], "open_clip": [2.0, 2.5, 3.0]}
    firsts = {(way, heat): [20.0] for way in ("scanned", "unrolled") for heat in ("cold", "warm")}
    firsts["unrolled", "warm"] = [40.0]
    text = report.document(
        {
            "input": kept(input_benchmark.rows(loaded, ["tar shards"])),
            "checkpoint": kept(checkpoint.rows(turns)),
            "train_step": kept(train_step.rows(steps)),
            "first_step": kept(first_step.rows(firsts)),
        }
    )
    for line in (
        "| input | tar shards | 900 images/s | open_clip | 200 images/s | 4.50 (1.00) | ≥ 4.5 | reached |",
        "| input | tar shards | 900 images/s | big_vision | 800 images/s | 1.12 (1.00) | ≥ 1.3 | MISSED |",
        "| input | tar shards, antialias | 560 images/s | open_clip | 200 images/s | 2.80 (1.00) | ≥ 2.7 | reached |",
        "| checkpoint | the longest that a save blocks | 0.310 s | torch.save | 1.00 s | 0.26 | ≤ 0.3 s | MISSED |",
        "| checkpoint | restore | 2.00 s | torch.load | 1.00 s | 2.00 | ≤ 1.5 | MISSED |",
        "| train_step | mmjax, one | 2.00 s a step | open_clip | 2.50 s a step | 0.80 | ≤ 1.0 | reached |",
        "| train_step | mmjax, two | 5.00 s a step | open_clip | 2.50 s a step | 2.00 | ≤ 1.0 | MISSED |",
        "| 40.0 s | 0.50 |  |  |",
        "3 cores (P), load before it 0.25; jax 9.9; of the peers: torch 8.8. It was measured before the code last ch",
    ):
        assert line in text, text
    assert "Not measured" not in text


def test_a_benchmark_without_its_peer_judges_nothing_of_it():
    turn = Turn([0.1], [1.0], 2.0, 1.0, 1, None, Written(1, 2.0, 1.0), Written(1, 5.0, 1.0))
    rows = [*checkpoint.rows([turn]), *train_step.rows({"mmjax": [1.0]})]
    found = {row["what"]: row.get("reached") for row in rows}
    assert [found[what] for what in ("the longest that a save blocks", "restore", "mmjax")] == [True, None, None]
    assert "| train_step | mmjax | 1.00 s a step |  |  |  |  |  |" in report.document({"train_step": kept(rows)})


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_a_benchmark_depends_on_is_there(name):
    assert len(report.code_of(name)) == 16


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A folder with one benchmark that counts its runs; called with arguments it gives the page."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "some.py").write_text(SCRIPT)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "BENCHMARKS", {"some": Benchmark("a count", (), False), "other": Benchmark("", ())})

    def run(*words: str) -> str:
        folders = ["--out", str(tmp_path / "out"), "--workdir", str(tmp_path / "work")]
        monkeypatch.setattr("sys.argv", ["report", *words, *folders])
        report.main()
        return (tmp_path / "out" / "benchmarks.md").read_text()

    run.script = tmp_path / "benchmarks" / "some.py"
    return run


def test_what_was_measured_is_measured_again_when_it_is_named_or_its_code_changed(command, tmp_path):
    store = tmp_path / "work" / "some.json"
    store.parent.mkdir()
    text = command("--only", "some")
    assert "| some | runs | 1.00 times |" in text and "≤ 1 times | reached |" in text and "Not measured: other." in text
    report.measured("some", None, store, fresh=False)
    assert json.loads(store.read_text())["rows"][0]["ours"] == 1
    assert "| some | runs | 2.00 times |" in command("--only", "some")
    command.script.write_text(SCRIPT + "# changed\n")
    assert "before the code last changed" in command("--page")
    report.measured("some", None, store, fresh=False)
    text = command("--page")
    assert "| some | runs | 3.00 times |" in text and "last changed" not in text


def test_a_benchmark_that_fails_keeps_what_was_there(command, tmp_path):
    command("--only", "some")
    command.script.write_text("raise SystemExit(3)")
    with pytest.raises(UserError, match=r"benchmarks/some\.py ended with 3"):
        report.measured("some", None, tmp_path / "work" / "some.json", fresh=True)
    assert "| some | runs | 1.00 times |" in command("--page")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "sone"], "'sone' is unknown. Did you mean 'some'"),
        ([], "--peer-python is needed for other"),
        (["--page"], "holds nothing that was measured"),
        (["--peer-python", "/gone/python", "--only", "other"], "/gone/python cannot be run: No such file"),
    ],
)
def test_mistakes_are_sentences(command, capsys, words, told):
    with pytest.raises(SystemExit) as ended:
        command(*words)
    assert ended.value.code == 2 and told in capsys.readouterr().err


def test_a_peer_that_lacks_a_package_is_a_sentence(monkeypatch):
    monkeypatch.setattr(report, "PEERS", ("pytest", "mmjax-no-such-package"))
    with pytest.raises(UserError, match=r"lacks one of pytest, mmjax-no-such-package: .*mmjax-no-such-package"):
        report.versions_at(sys.executable)
