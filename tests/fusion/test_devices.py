"""Every fusion over eight devices is the same as on one."""

from tests.devices import run_on_devices


def test_eight_devices_agree_with_one():
    """Relative difference of loss and gradient (as one vector) below 5e-6, with noise and every subset."""
    run_on_devices("""
        import jax, jax.numpy as jnp, numpy as np, optax
        from mmjax.core.mesh import MeshShape, batch_sharding, make_mesh
        from mmjax.layers.dropout import example_keys
        from tests.fusion.cases import EVERY_SUBSET, FUSIONS, make_tokens, random_params
        from tests.quick import jit

        present = np.concatenate([EVERY_SUBSET, EVERY_SUBSET[::-1]])
        tokens, keys = make_tokens(present), example_keys(jax.random.key(3), len(present))
        mesh = make_mesh(MeshShape(data=4, fsdp=2))
        for name, make in FUSIONS.items():
            module = make()
            params = random_params(module, tokens)

            def loss(params, tokens):
                outputs = module.apply({"params": params}, tokens, keys)
                return jnp.mean(jnp.sin(outputs.fused.pooled)) + sum(map(jnp.mean, outputs.penalties.values()))

            one = jit(jax.value_and_grad(loss))(params, tokens)
            with jax.set_mesh(mesh):
                many = jit(jax.value_and_grad(lambda p, t: loss(p, t)))(
                    params, jax.device_put(tokens, batch_sharding(mesh))
                )
            assert np.isfinite(one[0])
            difference = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), one[1], many[1])
            found = abs(float(one[0]) - float(many[0])), optax.global_norm(difference) / optax.global_norm(one[1])
            assert max(found) < 5e-6, (name, found)
        """)
