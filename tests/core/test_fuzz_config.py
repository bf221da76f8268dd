"""Any stored config, override or name of a config is taken, or a sentence says what is wrong with it."""

import json
import pathlib

import fiddle as fdl
import pytest
from hypothesis import strategies as st

from mmjax.core.config import from_json, load_config, to_json
from mmjax.core.errors import UserError
from mmjax.core.override import describe, override
from tests.fuzzing import amounts, fuzz, json_values, mutated, odd_text

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
OPENMOJI = load_config(f"{CONFIGS / 'openmoji.py'}:smoke")
PATHS = [line.partition(" = ")[0] for line in describe(OPENMOJI).splitlines()]
PARTS = sorted({part for path in PATHS for part in path.split(".")})


@amounts
def test_any_json_as_a_stored_config(amount):
    def check(text: str) -> None:
        try:
            assert isinstance(from_json(text), fdl.Config)
        except UserError as error:
            assert str(error)

    fuzz(amount, check, st.one_of(mutated(to_json(OPENMOJI)), json_values.map(json.dumps), odd_text))


@amounts
def test_any_text_as_an_override(amount):
    path = st.one_of(
        st.sampled_from(PATHS),
        st.lists(st.sampled_from([*PARTS, "0", "-1", ""]), max_size=4).map(".".join),
        odd_text,
    )
    value = st.one_of(
        odd_text,
        json_values.map(repr),
        st.sampled_from(["os.path", "os.system", "json.JSONDecoder", "mmjax.fusion.late.Late", "a.b", ".", "(", "-"]),
        st.sampled_from(["(" * 3000, "-" * 5000 + "1", "9" * 5000, "1e999", "{[]: 1}", "f'{1}'", "__import__('os')"]),
    )

    def check(assignment: str) -> None:
        config = fdl.deepcopy_with(OPENMOJI)
        try:
            override(config, assignment)
        except UserError as error:
            assert "--set" in str(error)

    whole = st.tuples(path, st.sampled_from(["=", "==", " = ", ""]), value).map("".join)
    fuzz(amount, check, st.one_of(whole, odd_text))


@amounts
@pytest.mark.parametrize("name", ["openmoji", "clip", "ecg"])
def test_any_text_as_the_name_of_a_config(amount, name, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)

    def check(spec: str) -> None:
        try:
            assert isinstance(load_config(spec), fdl.Config)
        except UserError as error:
            assert str(error)

    fuzz(
        amount, check, st.one_of(odd_text, st.one_of(odd_text, st.text()).map(lambda size: f"configs/{name}.py:{size}"))
    )
