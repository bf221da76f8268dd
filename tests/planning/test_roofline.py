"""A lower bound of the time where there are no cycles, on a program that this machine compiles."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mmjax.planning.chips import GPUS
from mmjax.planning.hlo import parse
from mmjax.planning.roofline import ARITHMETIC, TRAFFIC, roofline, written


def program_of(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return parse(jax.jit(function).lower(*arrays).compile().as_text())


def test_what_is_written_counts_as_often_as_it_runs():
    once = written(program_of(lambda a, b: a @ b, (64, 64), (64, 64)))
    assert 64 * 64 * 4 <= once <= 2 * 64 * 64 * 4
    loop = program_of(lambda a: jax.lax.fori_loop(0, 7, lambda i, a: jnp.sin(a @ a), a), (64, 64))
    assert 7 * once <= written(loop) <= 7 * 3 * 64 * 64 * 4 + 4096


def test_an_update_in_place_counts_as_what_is_updated():
    stacked = program_of(lambda a: jax.lax.scan(lambda c, _: (c * 2, c), a, None, length=100)[1], (1000,))
    assert written(stacked) < 10 * 100 * 1000 * 4  # and not 100 times the stack of 100


FUSED = """HloModule m

%several (a: f32[100,8], b: f32[8]) -> (f32[100,8], f32[800]) {
  %a = f32[100,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %i = s32[] constant(0)
  %row = f32[1,8]{1,0} bitcast(%b)
  %first = f32[100,8]{1,0} dynamic-update-slice(%a, %row, %i, %i)
  %flat = f32[800]{0} bitcast(%first)
  ROOT %both = (f32[100,8]{1,0}, f32[800]{0}) tuple(%first, %flat)
}

ENTRY %main (a: f32[100,8], b: f32[8]) -> f32[16] {
  %a = f32[100,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %f = (f32[100,8]{1,0}, f32[800]{0}) fusion(%a, %b), kind=kLoop, calls=%several
  %s = ((f32[8]{0}), f32[16]{0}) all-gather-start(%b), replica_groups=[1,2]<=[2], dimensions={0}
  ROOT %d = f32[16]{0} all-gather-done(%s)
}
"""


def test_updates_behind_a_tuple_or_a_bitcast_and_what_starts_count_once():
    assert written(parse(FUSED)) == 2 * 8 * 4 + 16 * 4


def test_the_larger_bound_is_the_time():
    chip = dataclasses.replace(GPUS["H100"], peak_flops=1e12, bandwidth=1e12)
    program = program_of(lambda a, b: a @ b, (64, 64), (64, 64))
    assert roofline(1e12, program, chip) == {ARITHMETIC: 1.0}
    assert roofline(1.0, program, chip) == {TRAFFIC: pytest.approx(2 * written(program) / 1e12)}
