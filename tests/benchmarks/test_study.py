"""Studies: curves take their points from columns or from rows, and a teacher is trained once for all its rows."""

import pytest

from benchmarks import study
from benchmarks.studies import SEMI_PAIRED, STUDIES
from benchmarks.studies.pictures import Curve, RowCurve
from benchmarks.studies.rows import Run


def test_a_curve_has_a_line_for_each_row():
    rows = [
        (Run({"model": name, "note": ""}), [{"a": x, "b": 0.1}, {"a": x + 0.2, "b": 0.3}]) for name, x in (("m", 0.2),)
    ]
    (line,) = Curve("lost, %", {0: "a", 50: "b"}).lines(rows).items()
    assert line == ("m", {0: pytest.approx(0.3), 50: pytest.approx(0.2)})


def test_a_curve_of_rows_joins_those_that_differ_in_one_cell(tmp_path):
    curve = RowCurve("kept, %", "kept", "found", y="found, %", top=None, log=True)
    rows = [
        (Run({"model": model, "kept": kept}), [{"found": value}, {"found": value + 0.2}])
        for model, kept, value in (("one", "1 %", 0.1), ("two", "1 %", 0.2), ("one", "20 %", 0.3), ("two", "20 %", 0.4))
    ]
    assert curve.lines(rows) == {
        "one": {1.0: pytest.approx(0.2), 20.0: pytest.approx(0.4)},
        "two": {1.0: pytest.approx(0.3), 20.0: pytest.approx(0.5)},
    }
    curve.draw(rows, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_every_share_of_semi_paired_training_is_a_row_of_each_kind():
    shares = {run.cells["pairs kept"] for run in SEMI_PAIRED.runs}
    assert len(SEMI_PAIRED.runs) == 3 * len(shares) == 12
    kept = [study.configured(SEMI_PAIRED, run, 0, False).data.source.sources[0].share for run in SEMI_PAIRED.runs]
    assert kept == [float(run.cells["pairs kept"].rstrip(" %")) / 100 for run in SEMI_PAIRED.runs]


def test_shares_are_shown_in_percent():
    assert study.shown("held_out/mean_recall_at_10", [0.1, 0.3]) == "20.0 ± 14.1 %"
    assert study.shown("score/correlation", [0.5]) == "0.500" and study.shown("any", [None]) == ""


def test_a_teacher_is_trained_once_and_its_folder_is_whole(tmp_path, monkeypatch):
    trained = []

    def fit(config, workdir, console):
        trained.append(config.seed)
        workdir.mkdir(parents=True)
        (workdir / "weights").touch()

    monkeypatch.setattr(study, "fit", fit)
    first, again = (study.seeded(STUDIES["colearn"].smoke_teacher, seed=0) for _ in range(2))
    path = study.taught(first, tmp_path / "row1")
    assert path.parent == tmp_path and (path / "weights").exists()
    assert study.taught(again, tmp_path / "row2") == path and trained == [0]
    other = study.taught(study.seeded(STUDIES["colearn"].smoke_teacher, seed=1), tmp_path / "row1")
    assert other != path and trained == [0, 1]


def test_a_student_without_its_teacher_trains_none(monkeypatch):
    alone = [run for run in STUDIES["colearn"].runs if run.cells["student"] == "alone"]
    assert len(alone) == 2 and not any(run.teacher for run in alone)
    for run in alone:
        config = study.configured(STUDIES["colearn"], run, 0, False)
        assert config.teachers == {} and config.task.weights["teacher"] == 0
