"""A view of a source: some of its columns, and what a mixture makes of the others."""

import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.data.mixture import Mixture
from mmjax.data.pipeline import Pipeline
from mmjax.data.sources.in_memory import InMemory
from mmjax.data.sources.subset import Subset
from mmjax.data.sources.view import View
from mmjax.data.targets import ValueTarget, classes_of


class Numbers:
    name, columns = "numbers", ("x", "y")

    def __len__(self):
        return 4

    def read(self, index):
        return {"x": float(index), "y": float(-index)}

    def label(self, index):
        return f"number {index}"

    def group(self, index):
        return index // 2


def test_columns_under_new_names_and_all_else_the_source_s_own():
    view = View(Numbers(), {"z": "y"})
    assert view.read(3) == {"z": -3.0} and view.columns == ("z",) and len(view) == 4
    assert view.label(1) == "number 1" and view.group(3) == 1 and view.name == "numbers (z)"


def test_what_the_source_declares_is_said_through_every_wrapper():
    class Declared(Numbers):
        classes, credit = {"y": ("b", "a", "never")}, "by somebody"

        def read(self, index):
            pytest.fail("the classes are declared")

    for wrapped in (Subset(Declared(), 0.5), InMemory(Declared()), InMemory(Subset(Declared(), 0.5))):
        assert classes_of(wrapped, "y") == ["b", "a", "never"] and wrapped.credit == "by somebody"
    view = View(Subset(Declared(), 0.5), {"z": "y"})
    assert classes_of(view, "z") == ["b", "a", "never"] and view.classes.get("y") is None and len(view) == 2


def test_a_part_of_a_mixture_lacks_the_columns_that_its_view_leaves_out():
    source = Mixture([Numbers(), View(Numbers(), {"x": "x"})])
    pipeline = Pipeline(source, {}, 8, targets={n: ValueTarget(n) for n in ("x", "y")})
    (batch,) = pipeline.eval_batches()
    np.testing.assert_array_equal(batch.targets["x"], [0, 1, 2, 3] * 2)
    np.testing.assert_array_equal(np.isnan(batch.targets["y"]), [False] * 4 + [True] * 4)


def test_what_cannot_be_viewed_is_a_sentence():
    with pytest.raises(UserError, match=r"numbers has no column 'yy'\. Did you mean 'y'\?"):
        View(Numbers(), {"y": "yy"})
    with pytest.raises(UserError, match="name at least one column"):
        View(Numbers(), {})
    with pytest.raises(UserError, match="numbers is a Mixture"):
        View(Mixture([Numbers()]), {"x": "x"})
