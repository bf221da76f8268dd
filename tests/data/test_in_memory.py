"""Records kept in memory are the source's own, read once."""

import copy

import pytest

from mmjax.core.errors import UserError
from mmjax.data.mixture import Mixture
from mmjax.data.source import BadRecord
from mmjax.data.sources.in_memory import InMemory


class Counting:
    name, columns, classes = "counting", ("x",), {"x": ["a"]}

    def __init__(self):
        self.reads = []

    def __len__(self):
        return 3

    def read(self, index):
        self.reads.append(index)
        if index == 2:
            raise BadRecord("broken", "it is.")
        return {"x": index}

    def label(self, index):
        return f"record {index}"

    def group(self, index):
        return 7


def test_each_record_is_read_once_and_all_else_is_the_sources():
    inner = Counting()
    source = InMemory(inner)
    first = source.read(1)
    first["x"] = "changed by who read it"
    assert source.read(1) == {"x": 1} and inner.reads == [1]
    assert (len(source), source.name, source.columns, source.classes) == (3, "counting", ("x",), {"x": ["a"]})
    assert source.label(2) == "record 2" and source.group(0) == 7
    for _ in range(2):
        with pytest.raises(BadRecord):
            source.read(2)
    assert inner.reads == [1, 2, 2]
    assert not hasattr(source, "mapping") and len(copy.deepcopy(source)) == 3


def test_a_mixture_is_refused_as_its_weights_would_be_lost():
    mixture = Mixture([Counting(), Counting()], [0.9, 0.1])
    with pytest.raises(
        UserError, match=r"counting \+ counting is a Mixture.*Mixture\(\[InMemory\(part\), \.\.\.\], weights\)"
    ):
        InMemory(mixture)
    assert len(Mixture([InMemory(Counting()), InMemory(Counting())], [0.9, 0.1])) == 6
