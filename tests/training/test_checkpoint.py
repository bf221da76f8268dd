"""Checkpoints: which stay, onto which mesh they restore, what must fit."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mmjax.core.errors import UserError
from mmjax.core.trees import flatten
from mmjax.training import checkpoint
from mmjax.training.checkpoint import Checkpoints, InitFrom, Keep
from mmjax.training.optimizer import Optimizer
from mmjax.training.state import create
from tests.devices import run_on_devices, run_on_hosts

PARAMS = {"a": {"kernel": np.arange(32, dtype=np.float32).reshape(8, 4)}, "b": {"kernel": np.ones(4, np.float32)}}


def state_at(step: int, ema: bool = False):
    optimizer = Optimizer(frozen=["b/.*"])
    params = jax.tree.map(jnp.asarray, PARAMS)
    tx = optimizer.build(params, lambda step: 0.1)
    state = create(params, tx, optimizer.trainable(params) if ema else None)
    state = state.replace(step=jnp.asarray(step, jnp.int32))
    return state.replace(ema={"a": {"kernel": params["a"]["kernel"] + 1}, "b": {"kernel": None}}) if ema else state


def save(workdir, steps, keep=None, ema=False):
    checkpoints = Checkpoints(workdir, keep or Keep())
    for step, metric in steps.items():
        metrics = None if metric is None else {"recall": metric}
        assert checkpoints.save(state_at(step, ema), {"config": {"step": step}}, metrics)
        checkpoints.wait()
    return checkpoints


def test_last_and_best_are_kept(tmp_path):
    steps = {1: 0.1, 2: 0.9, 3: 0.2, 4: None, 5: 0.3, 6: None}
    checkpoints = save(tmp_path, steps, Keep(last=2, best=1, metric="recall"))
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.best("recall") == 2
    assert checkpoints.meta(5) == {"config": {"step": 5}}
    checkpoints.close()
    assert Checkpoints(tmp_path).steps() == [2, 5, 6]


def test_a_metric_that_is_not_a_number_is_worse_than_any(tmp_path):
    steps = {1: 0.1, 2: 0.9, 3: float("nan"), 4: 0.5, 5: 0.3}
    checkpoints = save(tmp_path, steps, Keep(last=1, best=1, metric="recall"))
    assert checkpoints.steps() == [2, 5] and checkpoints.best("recall") == 2
    checkpoints.close()


@pytest.mark.parametrize("wrong", [{"last": 0}, {"best": -1}])
def test_a_run_keeps_something(wrong):
    with pytest.raises(UserError, match="must be at least"):
        Keep(**wrong)


def test_arrays_lie_on_the_disk_as_they_are(tmp_path):
    """Compression takes the time of a save and of a restore, and gives little on weights."""
    params = {"a": {"kernel": jnp.zeros((1024, 1024), jnp.float32)}}
    optimizer = Optimizer()
    state = create(params, optimizer.build(params, lambda step: 0.1), None)
    checkpoints = Checkpoints(tmp_path, Keep())
    checkpoints.save(state, {})
    checkpoints.close()
    arrays = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) >= arrays


def test_a_compressed_checkpoint_of_an_older_version_is_restored(tmp_path):
    state = state_at(4)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        arrays = ocp.args.StandardSave(checkpoint._as_stored(state))
        manager.save(4, args=ocp.args.Composite(state=arrays, meta=ocp.args.JsonSave({"config": {"step": 4}})))
    checkpoints = Checkpoints(tmp_path, Keep(), tell=lambda sentence: None)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(abstract), state)
    assert checkpoints.meta() == {"config": {"step": 4}}
    np.testing.assert_array_equal(checkpoints.restore_params()["a"]["kernel"], PARAMS["a"]["kernel"])
    checkpoints.close()


def test_a_step_is_saved_once(tmp_path):
    checkpoints = save(tmp_path, {3: None})
    assert not checkpoints.save(state_at(3), {})
    checkpoints.close()


def test_parameters_to_evaluate_are_the_average_where_there_is_one(tmp_path):
    save(tmp_path, {1: None}, ema=True).close()
    params = Checkpoints(tmp_path).restore_params()
    np.testing.assert_array_equal(params["a"]["kernel"], PARAMS["a"]["kernel"] + 1)
    np.testing.assert_array_equal(params["b"]["kernel"], PARAMS["b"]["kernel"])


def test_a_missing_checkpoint_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="there is no complete checkpoint"):
        Checkpoints(tmp_path).restore_params()
    save(tmp_path, {1: None}).close()
    with pytest.raises(UserError, match=r"no checkpoint of step 7; there are \[1\]"):
        Checkpoints(tmp_path).restore_params(7)


def test_a_state_that_does_not_fit_lists_what(tmp_path):
    checkpoints = save(tmp_path, {1: None})
    state = state_at(0)
    other = state.replace(params={"a": {"kernel": jnp.zeros((8, 5))}, "c": {"kernel": jnp.zeros(4)}})
    with pytest.raises(UserError) as error:
        checkpoints.restore(other)
    for words in ("does not fit this config", "a/kernel is (8, 4), expected (8, 5)", "missing: c/kernel"):
        assert words in str(error.value)
    checkpoints.close()


def test_init_from_takes_weights_only_and_names_what_does_not_fit(tmp_path):
    save(tmp_path, {1: None}).close()
    target = jax.tree.map(jnp.zeros_like, {"a": PARAMS["a"], "new": {"kernel": PARAMS["b"]["kernel"]}})
    with pytest.raises(UserError, match="2 weights do not fit"):
        InitFrom(str(tmp_path)).merge(target)
    found = InitFrom(str(tmp_path), allow_missing=["new/.*"], allow_extra=["b/.*"]).merge(target)
    assert flatten(found).keys() == {"a/kernel", "new/kernel"}
    np.testing.assert_array_equal(found["a"]["kernel"], PARAMS["a"]["kernel"])
    with pytest.raises(UserError, match=r"teachers\): '.*nowhere' does not exist; expected the --workdir of"):
        InitFrom(str(tmp_path / "nowhere")).merge(target)
    (tmp_path / "model.safetensors").write_bytes(b"w")
    with pytest.raises(UserError, match=r"safetensors' is no run.* Files of other libraries are for `pretrained`"):
        InitFrom(str(tmp_path / "model.safetensors")).merge(target)


def test_init_from_places_weights_over_two_hosts(tmp_path):
    save(tmp_path, {1: None}).close()
    run_on_hosts(
        f"""
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from mmjax.core.mesh import MeshShape, make_mesh
        from mmjax.training.checkpoint import InitFrom
        from tests.training.test_checkpoint import PARAMS
        mesh = make_mesh(MeshShape(data=1, fsdp=4))
        specs = {{"a": {{"kernel": P("fsdp")}}, "b": {{"kernel": P()}}}}
        zeros = jax.jit(
            lambda: jax.tree.map(lambda x: 0 * x, PARAMS),
            out_shardings=jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs),
        )()
        for (path, leaf), expected in zip(
            jax.tree.leaves_with_path(InitFrom({str(tmp_path)!r}).merge(zeros)), jax.tree.leaves(PARAMS)
        ):
            for shard in leaf.addressable_shards:
                np.testing.assert_array_equal(shard.data, expected[shard.index], err_msg=str(path))
    """,
        num_devices=2,
    )


def test_restores_onto_another_mesh_and_onto_one_device(tmp_path):
    out = run_on_devices(f"""
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P
        from mmjax.core.mesh import MeshShape, make_mesh
        from mmjax.training.checkpoint import Checkpoints, Keep
        from tests.training.test_checkpoint import PARAMS, state_at
        def placed(mesh, spec):
            state = state_at(4)
            return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, spec if x.ndim == 2 else P())), state)
        first = placed(make_mesh(MeshShape(data=2, fsdp=4)), P("fsdp"))
        checkpoints = Checkpoints({str(tmp_path)!r}, Keep())
        checkpoints.save(first, {{}})
        checkpoints.wait()
        for shape, spec, devices in (((8, 1, 1), P("data"), 8), ((1, 2, 2), P("tensor", "fsdp"), 4)):
            other = placed(make_mesh(MeshShape(*shape), jax.devices()[:devices]), spec)
            abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), other)
            found = checkpoints.restore(abstract)
            assert found.params["a"]["kernel"].sharding == other.params["a"]["kernel"].sharding
            jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(first))
        alone = checkpoints.restore_params()["a"]["kernel"]
        assert len(alone.devices()) == 1
        np.testing.assert_array_equal(alone, PARAMS["a"]["kernel"])
        print("ok")
    """)
    assert out.endswith("ok\n")
    np.testing.assert_array_equal(Checkpoints(tmp_path).restore_params()["a"]["kernel"], PARAMS["a"]["kernel"])


BALANCE = {"watch": {}, "noise": (), "averages": {"mean": {"a": jnp.float32(0.3)}, "count": jnp.float32(4)}}


def test_states_of_modulators_come_back_whatever_they_hold(tmp_path):
    state = state_at(1).replace(balance=BALANCE)
    checkpoints = Checkpoints(tmp_path, Keep())
    checkpoints.save(state, {})
    checkpoints.wait()
    found = checkpoints.restore(jax.eval_shape(lambda: state))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    np.testing.assert_array_equal(found.balance["averages"]["mean"]["a"], 0.3 * np.ones((), np.float32))
    with pytest.raises(UserError, match=r"(?s)does not fit this config.*balance/averages"):
        checkpoints.restore(jax.eval_shape(lambda: state_at(1)))
    checkpoints.close()


@pytest.mark.parametrize("saved", [{}, {"noise": ()}])
@pytest.mark.parametrize("wanted", [{}, {"noise": ()}, {"watch": {}, "noise": ()}])
def test_modulators_without_a_state_may_come_and_go(tmp_path, saved, wanted):
    checkpoints = Checkpoints(tmp_path, Keep())
    checkpoints.save(state_at(1).replace(balance=saved), {})
    checkpoints.wait()
    found = checkpoints.restore(jax.eval_shape(lambda: state_at(1).replace(balance=wanted)))
    assert found.balance == wanted and int(found.step) == 1
    checkpoints.close()
