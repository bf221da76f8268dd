"""jax.jit that compiles small programs in a third of the time, for tests of many of them."""

import functools

import jax

from tests.devices import OPTIONS

FULL = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
"""Options of the few programs that run for longer than they compile, whatever the flags of the session."""


@functools.lru_cache
def options():
    """Returns OPTIONS, or none where this version of XLA has no such options."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=OPTIONS)(0.0)
    except jax.errors.JaxRuntimeError:
        return None
    return OPTIONS


def jit(function):
    """Returns function, compiled without the costly passes."""
    return jax.jit(function, compiler_options=options())


def run(module, params, *inputs):
    """Returns module.apply({"params": params}, *inputs), compiled."""
    return jit(lambda params, *inputs: module.apply({"params": params}, *inputs))(params, *inputs)
