"""Teachers: frozen modules of a model whose weights come from another run."""

import fiddle as fdl
import flax.linen as nn
import jax
import numpy as np
import pytest

from mmjax.core.errors import UserError
from mmjax.fusion.coordinated import Coordinated
from mmjax.model import MultimodalModel
from mmjax.tasks.contrastive import Contrastive
from mmjax.tasks.task import TaskLoss
from mmjax.training.checkpoint import Checkpoints, InitFrom
from tests.quick import jit
from tests.training.test_loop import train
from tests.training.tiny import tiny_batch, tiny_config


class Imitate(Contrastive):
    """The student's pictures are to lie where the teacher's do."""

    def embed(self, apply, params, batch, rng):
        outputs = apply(params, batch.streams, rng)
        return (outputs.embeddings["image"], outputs.teachings["guide"].embeddings["image"]), ()

    def loss(self, by_example, shared, batch):
        student, teacher = by_example
        return TaskLoss(((student - teacher) ** 2).sum(axis=-1), batch.mask)


def student_config(**settings) -> fdl.Config:
    """A student that sees pictures alone, and the model of tiny_config as its teacher."""
    config = tiny_config(task=fdl.Config(Imitate), evaluations={}, **settings)
    config.keep.metric = None
    teacher = config.model
    encoders = {"image": fdl.deepcopy_with(teacher.encoders["image"])}
    fusion = fdl.Config(Coordinated, projections={"image": fdl.Config(nn.Dense, 16)}, init_logit_scale=2.0)
    config.model = fdl.Config(MultimodalModel, encoders, fusion, teachers={"guide": teacher})
    return config


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The workdir of a run to learn from."""
    workdir = tmp_path_factory.mktemp("teacher")
    train(workdir, duration=2, evaluations={})
    return workdir


@pytest.fixture
def student(monkeypatch):
    """Lets `train` train students."""
    monkeypatch.setattr("tests.training.test_loop.tiny_config", student_config)


def params_of(workdir) -> dict:
    return Checkpoints(workdir).restore_params()


def test_a_student_keeps_its_teacher_and_resumes_with_it(teacher, student, tmp_path):
    weights = {"guide": fdl.Config(InitFrom, str(teacher))}
    output = train(tmp_path, teachers=weights, duration=2)
    assert "initialised from scratch; the teacher 'guide' has the weights of" in output
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path)["teachers_guide"], params_of(teacher))
    assert "resumed everything" in train(tmp_path, teachers=weights, duration=3)
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path)["teachers_guide"], params_of(teacher))
    assert "RANDOM" in train(tmp_path / "random", duration=2)


def test_a_teacher_that_the_model_has_not_is_a_sentence(teacher, student, tmp_path):
    with pytest.raises(UserError, match=r"the teacher of the model: 'guid' is unknown. Did you mean 'guide'"):
        train(tmp_path, teachers={"guid": fdl.Config(InitFrom, str(teacher))})


def test_a_teacher_sees_what_the_student_does_not_and_gets_no_gradient():
    model = fdl.build(student_config().model).clone(modality_dropout={"image": 1.0})
    batch = tiny_batch()
    params = jit(model.init)(jax.random.key(0), batch.streams)["params"]

    def forward(params):
        return model.apply({"params": params}, batch.streams)

    def distance(params):
        outputs = forward(params)
        return ((outputs.embeddings["image"] - outputs.teachings["guide"].embeddings["text"]) ** 2).sum()

    outputs = jit(forward)(params)
    assert set(outputs.embeddings) == {"image"} and set(outputs.teachings["guide"].embeddings) == {"image", "text"}
    teacher = model.teachers["guide"]
    alone = jit(lambda params: teacher.apply({"params": params}, batch.streams))(params["teachers_guide"])
    np.testing.assert_array_equal(outputs.teachings["guide"].embeddings["text"], alone.embeddings["text"])
    gradients = jit(jax.grad(distance))(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients["teachers_guide"]))
    assert any(leaf.any() for leaf in jax.tree.leaves(gradients["encoders_image"]))
    with pytest.raises(UserError, match="no stream"):
        jax.eval_shape(lambda params: model.apply({"params": params}, {"text": batch.streams["text"]}), params)
