"""The batch at step s is a pure function of (config, seed, s); damage and mistakes reach the user as sentences."""

import dataclasses
import gc
import json
import subprocess
import sys
import textwrap
import threading
import zlib

import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.core.types import Stream
from mmjax.data.loading import example_rng
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.transforms import ImageTransform, TextTransform
from tests.data.memory import Numbers, Pictures, digest, encode, picture

TRANSFORMS = {
    "image": ImageTransform(size=12, scale=(0.3, 1.0), flip=True),
    "text": TextTransform(tokenizer="bytes", context_length=16),
}


@dataclasses.dataclass(frozen=True)
class NumberTransform:
    """The number itself, and in training one drawn number; a modality defined in a test, outside of the library."""

    column: str = "number"

    def out_spec(self):
        return {"values": ((2,), np.float32), "mask": ((1,), np.bool_)}

    def prepare(self, record, rng):
        return record["number"], -1.0 if rng is None else rng.random()

    def collate(self, prepared):
        values = np.array([(0, 0) if row is None else row for row in prepared], np.float32)
        return Stream(values, np.array([[row is not None] for row in prepared]))

    def spec(self):
        return {"type": "tests.data.test_pipeline.NumberTransform"}


NUMBER = {"number": NumberTransform()}


def rare_bad(index, record):
    return record | {"image": b""} if index == 7 else record


def mixed() -> Mixture:
    return Mixture([Pictures(9, "few"), Pictures(40, "many", rare_bad)], [1, 2])


def make(source=None, **options) -> Pipeline:
    return Pipeline(source or Pictures(30, change=rare_bad), TRANSFORMS, batch_size=8, max_bad_share=0.2, **options)


def digests(pipeline: Pipeline, start: int, count: int, hosts: int = 1) -> list[str]:
    """Returns the hash of each global batch, put together from the rows of every host."""
    size = pipeline.batch_size // hosts
    streams = [pipeline.train(start, slice(host * size, (host + 1) * size)) for host in range(hosts)]
    found = []
    for _ in range(count):
        parts = [next(stream) for stream in streams]
        found.append(digest(jax.tree.map(lambda *rows: np.concatenate(rows), *parts)))
    return found


def test_the_generator_of_an_example_depends_on_its_key_alone():
    def drawn(seed, position, name):
        rng = example_rng(seed, position, name)
        return int(rng.integers(0, 2**31, dtype=np.int32)), rng.random(), rng.standard_normal()

    keys = [(0, 5, "image"), (0, 5, "text"), (0, 6, "image"), (-1, 5, "image"), (-2, 5, "image"), (2**63, 5, "image")]
    first = [drawn(*key) for key in keys]
    assert len(set(first)) == len(keys)
    assert [drawn(*key) for key in reversed(keys)] == first[::-1]
    key, counter = np.array([2**64 - 1, 5], np.uint64), [0, 0, 0, zlib.crc32(b"image")]
    plain = np.random.Generator(np.random.Philox(key=key, counter=counter))
    assert example_rng(-1, 5, "image").random() == plain.random()


@pytest.mark.parametrize("source", [None, mixed()], ids=["one source", "mixture"])
def test_batches_are_the_same_for_any_hosts_restart_chunks_and_threads(source):
    expected = digests(make(source), 0, 10)
    assert len(set(expected)) == 10
    for hosts in (2, 4):
        assert digests(make(source), 0, 10, hosts) == expected
    for start in (1, 4, 9):
        assert digests(make(source), start, 10 - start) == expected[start:]
    for chunk, threads in ((1, 4), (3, 1), (64, 2)):
        assert digests(make(source, chunk=chunk, num_threads=threads), 0, 10) == expected
    assert digests(make(source), 6, 3, hosts=2) == expected[6:9]
    assert not set(digests(make(source, seed=1), 0, 10)) & set(expected)


def test_rows_may_be_any_rows():
    whole = next(make().train(3))
    part = next(make().train(3, rows=[6, 1]))
    assert digest(part) == digest(jax.tree.map(lambda leaf: leaf[[6, 1]], whole))
    for rows in ([8], [], slice(3, 3), range(-1, 2)):
        with pytest.raises(UserError, match="some of the 8 rows"):
            make().train(rows=rows)


def test_an_epoch_has_every_record_once_and_the_next_looks_different():
    pipeline = Pipeline(Numbers(24), NUMBER, batch_size=8)
    stream = pipeline.train()
    epochs = [[next(stream) for _ in range(3)] for _ in range(2)]
    values = [np.concatenate([batch.streams["number"].values for batch in epoch]) for epoch in epochs]
    for epoch, numbers in zip(epochs, values, strict=True):
        assert sorted(numbers[:, 0].tolist()) == list(range(24))
        assert np.concatenate([batch.group for batch in epoch]).tolist() == numbers[:, 0].tolist()
    assert values[0][:, 0].tolist() != values[1][:, 0].tolist()
    assert len({*values[0][:, 1].tolist(), *values[1][:, 1].tolist()}) == 48


def test_another_modality_does_not_change_the_first():
    both = next(make().train())
    alone = next(Pipeline(Pictures(30, change=rare_bad), {"image": TRANSFORMS["image"]}, 8, max_bad_share=0.2).train())
    assert (both.streams["image"].values == alone.streams["image"].values).all()


def test_a_bad_record_is_replaced_by_the_next_good_one_of_the_permutation():
    clean = Pipeline(Numbers(20), NUMBER, batch_size=20)
    order = next(clean.train()).group.tolist()
    bad = frozenset([order[3], order[4], order[19]])
    pipeline = Pipeline(Numbers(20, bad=bad), NUMBER, batch_size=20, max_bad_share=0.5)
    batch = next(pipeline.train())
    expected = list(order)
    expected[3] = expected[4] = order[5]
    expected[19] = order[0]
    assert batch.group.tolist() == expected and batch.mask.all()
    assert batch.streams["number"].values[:, 0].tolist() == expected


def damaged(index: int, record: dict) -> dict:
    """Damages 3 of every 100 records, each in another way."""
    jpeg = encode(picture(index), "JPEG")
    changes = {
        20: {"image": jpeg[: len(jpeg) // 2]},
        50: {"caption": [" "]},
        80: {"image": b""},
    }
    return record | changes.get(index % 100, {})


def test_three_percent_of_damage_stops_at_one_percent_and_is_counted_exactly_at_five(tmp_path):
    source = Pictures(400, change=damaged)
    with pytest.raises(UserError, match=r"of the \d+ records read so far are bad.*max_bad_share=1.00%.*bad.jsonl"):
        for _ in zip(range(50), Pipeline(source, TRANSFORMS, 8, bad_log=tmp_path / "bad.jsonl").train(), strict=False):
            pass
    expected = {"empty_caption": 4, "empty_file": 4, "truncated_image": 4}
    log = tmp_path / "more.jsonl"
    pipeline = Pipeline(source, TRANSFORMS, 8, max_bad_share=0.05, bad_log=log)
    stream = pipeline.train()
    for _ in range(60):  # more than an epoch
        batch = next(stream)
        assert batch.mask.all() and not np.isin(batch.group % 100, (20, 50, 80)).any()
    stream.close()
    assert pipeline.bad.counts() == expected and pipeline.bad.share == 12 / 400
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(entries) == 12 and {entry["label"] for entry in entries} >= {"pictures/20", "pictures/350"}
    restarted = Pipeline(source, TRANSFORMS, 8, max_bad_share=0.05, bad_log=log)
    assert restarted.bad.counts() == expected


def test_a_source_of_nothing_but_bad_records_ends_with_a_sentence():
    for share in (0.01, 1.0):
        source = Numbers(30, bad=frozenset(range(30)))
        with pytest.raises(UserError, match=r"numbers: .* bad"):
            next(Pipeline(source, NUMBER, batch_size=4, max_bad_share=share).train())


def test_errors_of_the_source_name_the_record_and_keep_their_kind():
    def fail(error):
        def change(index, record):
            if index == 5:
                raise error
            return record

        return list(make(Pictures(30, change=change)).eval_batches())

    with pytest.raises(UserError, match="pictures/5 cannot be read: no route to host"):
        fail(OSError("no route to host"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        fail(ZeroDivisionError("a bug"))


def test_an_error_comes_after_the_batches_before_it():
    def change(index, record):
        if index == 20:
            raise OSError("gone")
        return record

    stream = make(Pictures(30, change=change)).eval_batches()
    assert [next(stream).group[0] for _ in range(2)] == [0, 8]
    with pytest.raises(UserError, match="gone"):
        next(stream)
    assert list(stream) == []


def test_evaluation_reads_each_record_once_in_order_and_pads():
    pipeline = make()
    batches = list(pipeline.eval_batches(7))
    assert [batch.size for batch in batches] == [7] * 5
    group = np.concatenate([batch.group for batch in batches])
    mask = np.concatenate([batch.mask for batch in batches])
    assert group.tolist() == [*range(30), *[-1] * 5]
    assert np.flatnonzero(~mask).tolist() == [7, *range(30, 35)]
    assert not np.concatenate([batch.streams["text"].mask for batch in batches])[~mask].any()
    assert pipeline.bad.counts() == {"empty_file": 1}
    hosts = [list(make().eval_batches(8, rows)) for rows in (slice(0, 4), slice(4, 8))]
    joined = [jax.tree.map(lambda *rows: np.concatenate(rows), *parts) for parts in zip(*hosts, strict=True)]
    assert list(map(digest, joined)) == list(map(digest, make().eval_batches(8)))


def test_a_modality_that_a_part_of_a_mixture_lacks_is_masked():
    source = Mixture([Pictures(4), Numbers(4)])
    batch = next(Pipeline(source, TRANSFORMS | NUMBER, batch_size=8).eval_batches())
    assert batch.streams["image"].mask[:, 0].tolist() == [True] * 4 + [False] * 4
    assert batch.streams["text"].mask[:, 0].tolist() == [True] * 4 + [False] * 4
    assert batch.streams["number"].mask[:, 0].tolist() == [False] * 4 + [True] * 4
    assert batch.group.tolist() == list(range(8)) and batch.mask.all()


def test_batches_are_as_element_spec_says():
    pipeline = make()
    for batch, spec in ((next(pipeline.train()), pipeline.element_spec()),):
        assert jax.tree.structure(batch) == jax.tree.structure(spec)
        for leaf, expected in zip(jax.tree.leaves(batch), jax.tree.leaves(spec), strict=True):
            assert leaf.shape == expected.shape and leaf.dtype == expected.dtype
    assert pipeline.examples_per_epoch == 30 and pipeline.element_spec(3).size == 3


def test_a_missing_column_is_named_before_anything_is_read():
    with pytest.raises(UserError, match=r"pictures has no column 'captoin'.*'text'.*Did you mean 'caption'"):
        Pipeline(Pictures(3), {"text": TextTransform(column="captoin")}, batch_size=2)
    with pytest.raises(UserError, match=r"Pipeline\.batch_size=0 must be at least 1"):
        Pipeline(Pictures(3), TRANSFORMS, batch_size=0)


def test_dropping_or_closing_a_stream_stops_its_reads():
    reads = []

    def change(index, record):
        reads.append(index)
        return record

    for end in (lambda stream: stream.close(), lambda _: None):
        stream = make(Pictures(30, change=change)).train()
        next(stream)
        end(stream)
        worker = stream._worker
        del stream
        gc.collect()
        assert worker.stopped and worker.running == 0
        count = len(reads)
        threading.Event().wait(0.05)
        assert len(reads) == count


def test_a_stream_collected_on_one_of_its_own_threads_ends_too():
    held, first_batch_is_out, reads = [], threading.Event(), []

    def change(index, record):
        reads.append(index)
        if len(reads) > 16:
            first_batch_is_out.wait(30)
            held.clear()  # the last reference goes here, on a thread of the stream
        return record

    stream = make(Pictures(30, change=change), prefetch=1, num_threads=1).train()
    worker = stream._worker
    next(stream)
    held.append(stream)
    del stream
    first_batch_is_out.set()
    with worker.idle:
        assert worker.idle.wait_for(lambda: worker.stopped and worker.running == 0, timeout=30)


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)"])
def test_the_interpreter_ends_with_a_stream_at_work(ending):
    code = f"""
        import time
        from mmjax.data.pipeline import Pipeline
        from tests.data.memory import Numbers
        from tests.data.test_pipeline import NUMBER

        class Slow(Numbers):
            def read(self, index):
                time.sleep(0.01)
                return super().read(index)

        stream = Pipeline(Slow(1000), NUMBER, batch_size=32, num_threads=4).train()
        next(stream)
        print("one batch", flush=True)
        {ending}
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=90)
    assert run.returncode == 0 and run.stdout == "one batch\n", run.stderr
    assert "Traceback" not in run.stderr and "Fatal" not in run.stderr
