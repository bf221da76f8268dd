"""Counts are exact, the log outlives a restart, and too much damage ends the run with a sentence."""

import json

import pytest

from mmjax.core.errors import UserError
from mmjax.data.bad_records import BadRecords
from mmjax.data.source import BadRecord
from tests.data.memory import Numbers


def walk(tracker: BadRecords, bad: set[int], size: int) -> None:
    for record in range(size):
        if record in bad:
            tracker.add(record, BadRecord("odd" if record % 2 else "even", f"{record} is bad."))
        else:
            tracker.good(record)


def test_distinct_records_are_counted_once():
    tracker = BadRecords(Numbers(100), max_share=0.5)
    walk(tracker, {1, 3, 4}, 100)
    walk(tracker, {1, 3, 4}, 100)
    assert tracker.counts() == {"even": 1, "odd": 2}
    assert tracker.share == 0.03
    assert tracker.is_bad(3) and not tracker.is_bad(2)


def test_the_log_names_each_once_and_outlives_a_restart(tmp_path):
    log = tmp_path / "deep" / "bad.jsonl"
    walk(BadRecords(Numbers(100), 0.5, log), {1, 4}, 100)
    with log.open("a") as file:
        file.write('{"record": 7, "ki')  # killed here
    again = BadRecords(Numbers(100), 0.5, log)
    assert again.counts() == {"even": 1, "odd": 1}
    assert not again.is_bad(1)  # reading decides, not the log
    walk(again, {1, 4, 9}, 100)
    assert again.counts() == {"even": 1, "odd": 2}
    lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["record"] for line in lines] == [1, 4, 9]
    assert json.loads(lines[0]) == {
        "record": 1, "kind": "odd", "label": "numbers/1", "detail": "1 is bad.", "source": "numbers",
    }  # fmt: skip


def test_a_repaired_record_leaves_the_counts(tmp_path):
    log = tmp_path / "bad.jsonl"
    walk(BadRecords(Numbers(100), 0.5, log), {1, 4}, 100)
    again = BadRecords(Numbers(100), 0.5, log)
    walk(again, {4}, 100)
    assert again.counts() == {"even": 1}


def test_the_log_of_another_source_does_not_count(tmp_path):
    log = tmp_path / "bad.jsonl"
    walk(BadRecords(Numbers(100, "old"), 0.5, log), {1, 4}, 100)
    assert BadRecords(Numbers(100, "new"), 0.5, log).counts() == {}


def test_exactly_the_share_is_allowed_and_one_more_is_not():
    walk(BadRecords(Numbers(1000), 0.01), set(range(0, 100, 10)), 1000)
    with pytest.raises(UserError, match=r"11 of the 101 records read so far are bad, of 1000 in all.*1\.00%.*11 even"):
        walk(BadRecords(Numbers(1000), 0.01), set(range(0, 101, 10)), 1000)


def test_a_large_source_stops_long_before_it_is_read_through():
    tracker = BadRecords(Numbers(10**6), 0.01)
    with pytest.raises(UserError, match="Repair them, or raise max_bad_share"):
        walk(tracker, set(range(0, 10**6, 33)), 10**6)  # 3 %
    assert 20 / 0.03 < len(tracker._bad) / 0.03 < 2000
    walk(BadRecords(Numbers(20000), 0.01), set(range(0, 20000, 105)), 20000)  # 0.95 % passes


def test_the_first_record_being_bad_is_no_verdict_on_a_large_source():
    tracker = BadRecords(Numbers(10000), 0.01)
    tracker.add(0, BadRecord("even", "bad."))
    assert tracker.share == 1.0


def test_zero_and_one_are_the_ends():
    with pytest.raises(UserError, match="max_bad_share"):
        BadRecords(Numbers(10**6), 0.0).add(0, BadRecord("even", "bad."))
    walk(BadRecords(Numbers(50), 1.0), set(range(50)), 50)
    with pytest.raises(UserError, match="between 0 and 1"):
        BadRecords(Numbers(10), 5)
