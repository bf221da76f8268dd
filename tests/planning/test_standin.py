"""Plans without data: what stands for it has its columns and cannot be read."""

import dataclasses
import pathlib

import fiddle as fdl
import pytest

from mmjax.core.config import load_config
from mmjax.core.errors import UserError
from mmjax.planning.standin import StandIn, without_data
from mmjax.training.experiment import build

ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass
class Absent:
    path: str = ""

    def __post_init__(self):
        raise UserError("this data is not here")


@pytest.mark.parametrize("name", ["siglip", "ecg"])  # with captions; with targets and evaluations
def test_a_config_builds_without_its_data(name):
    config = load_config(f"{ROOT / 'configs' / name}.py:smoke")
    config.data.source = fdl.Config(Absent)
    with pytest.raises(UserError, match="not here"):
        build(config)
    experiment = build(without_data(config))
    spec = experiment.data.element_spec()
    assert set(spec.streams) == set(config.data.transforms) and not experiment.evaluations
    assert isinstance(experiment.data.source, StandIn)
    with pytest.raises(UserError, match="record 3 of the stand-in for the data of a plan cannot be read"):
        experiment.data.source.read(3)
    assert config.data.source == fdl.Config(Absent)  # the config is left alone
