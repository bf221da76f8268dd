"""Reading of compiled programs, and what is estimated from them, on a small program written by hand."""

import math

import jax
import jax.numpy as jnp
import pytest

from mmjax.planning.chips import CHIPS
from mmjax.planning.estimate import collectives, cycles_by_part, operations, part_of
from mmjax.planning.hlo import bytes_of, called, parse

TEXT = """HloModule jit_step, is_scheduled=true

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0:T(128)} parameter(0)
  ROOT %inner = f32[8]{0:T(128)} add(%p, %p), metadata={op_name="jit(f)/optimizer/add"}
}

%gathering (p: bf16[4]) -> bf16[32] {
  %q = bf16[4]{0} parameter(0)
  ROOT %piece = bf16[32]{0} all-gather(%q), channel_id=3, replica_groups=[4,8]<=[32], dimensions={0}
}

%all-reduce-scatter.1 (p: f32[32]) -> f32[4] {
  %r = f32[32]{0} parameter(0)
  %whole = f32[32]{0} all-reduce(%r), channel_id=1, replica_groups=[4,8]<=[32], to_apply=%fused
  ROOT %own = f32[4]{0} dynamic-slice(%whole), dynamic_slice_sizes={4}
}

%body (carry: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %carry = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %work = f32[8,128]{1,0:T(8,128)S(1)} fusion(%carry), kind=kLoop, calls=%fused, ATTRIBUTES
  %gather = bf16[64]{0} all-gather(%work), replica_groups=[4,8]<=[32], dimensions={0}
  ROOT %out = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%carry, %work)
}

%condition (carry: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12), metadata={op_name="x"}
  %carry = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%carry), index=0
  ROOT %less = pred[]{:T(512)} compare(%count, %limit), direction=LT
}

ENTRY %main (a: f32[8,128]) -> f32[8] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %loop = (s32[]{:T(128)}, /*index=1*/f32[8,128]{1,0:T(8,128)}) while(%a), condition=%condition, body=%body
  %send = f32[16]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
  %sum = (f32[4]{0}, bf16[6]{0}) all-reduce(%a, %a), replica_groups=mesh['x'=4,'y'=8] {'y'}, to_apply=%fused
  %spread = f32[10]{0} reduce-scatter(%a), replica_groups={{0,1},{2,3}}, to_apply=%fused
  %async-collective-start.5 = bf16[32]{0} fusion(%a), kind=kCustom, calls=%gathering
  %meanwhile = bf16[32]{0} fusion(%a), kind=kOutput, calls=%gathering
  %scattered = f32[4]{0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %last = f32[8]{0:T(128)} fusion(%loop), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"7"}
}
""".replace(
    "ATTRIBUTES",
    'metadata={op_name="jit(f)/transpose(jvp(M))/encoders_image/attention/attention_core/dot"}, '
    'backend_config={"estimated_cycles":"100"}',
)


def test_a_program_is_read_with_its_loops():
    program = parse(TEXT)
    runs = {instruction.name: times for instruction, times in program.runs()}
    assert runs["work"] == 12 and runs["last"] == 1 and "inner" not in runs
    assert cycles_by_part(program) == {"image: attention core": 1200, "optimizer": 7}


def test_bytes_of_shapes():
    assert bytes_of("f32[8,128]{1,0:T(8,128)S(1)}") == 4096
    assert bytes_of("(bf16[4], /*index=1*/s32[], pred[3])") == 8 + 4 + 3
    assert bytes_of("f8e4m3fn[16]") == 16 and bytes_of("token[]") == 0


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("jit(s)/jvp(M)/M._encode/encoders_text/transformer/while/body/blocks/mlp/up/dot_general", "text"),
        ("jit(s)/transpose(jvp(M))/encoders_audio/x/attention_core/mul", "audio: attention core"),
        ("jit(s)/fusion/blocks/attention/attention_core/mul", "attention core"),
        ("jit(s)/fusion/fusion._embed/mul", "fusion"),
        ("jit(s)/transpose(jvp(loss))/shard_map/while/add", "loss"),
        ("jit(s)/decoders_label/dense", "label"),
        ("jit(s)/optimizer/mul", "optimizer"),
        ("jit(s)/jvp(objective_masked)/encoders_image/blocks/attention_core/dot", "masked: image: attention core"),
        ("jit(s)/transpose(jvp(objective_matching))/fusion/joint/norm/mul", "matching: fusion"),
        ("jit(s)/jvp(loss)/objective_contrastive/shard_map/add", "contrastive: loss"),
        ("jit(s)/objective_matching/gather", "matching: other"),
        ("broadcast.4", "zeros that scans over layers begin with"),
        ("jit(s)/mul", "other"),
    ],
)
def test_parts_of_the_model(name, part):
    assert part_of(name) == part


def test_collectives_by_the_ring_algorithm():
    found = collectives(parse(TEXT), 32, CHIPS["v5e"])
    looped, fused = 12 * 128 * 7 / 8, 64 * 7 / 8  # that which goes on beside other work counts where it starts
    assert found["all-gather"].count == 13 and found["all-gather"].wire_bytes == looped + fused
    assert found["collective-permute"].wire_bytes == 64
    assert found["all-reduce"].wire_bytes == 2 * 28 * 7 / 8
    alone, fused = 40 * 2 / 2, 128 * 7 / 8  # an all-reduce of which each device keeps a part is one
    assert found["reduce-scatter"].count == 2 and found["reduce-scatter"].wire_bytes == alone + fused
    assert found["all-reduce"].seconds == found["all-reduce"].wire_bytes / 100e9


@pytest.mark.parametrize(
    ("result", "operands", "numbers"),
    [
        ("(f32[1000]{0}, f32[10]{0}, f32[1000]{0}) all-reduce-start", "%a, %a, %a", 2010),  # as GPUs combine gradients
        ("f32[8]{0} all-reduce-start", "%a", 8),
        ("(f32[8]{0}, f32[8]{0}) all-reduce-start", "%a", 8),  # with what goes in
        ("(bf16[8]{0}, bf16[64]{0}) all-gather-start", "%a", 32),
        ("((bf16[8]{0}, bf16[2]{0}), (bf16[64]{0}, bf16[16]{0})) all-gather-start", "%a, %a", 40),
        ("((f32[64]{0}), f32[8]{0}) reduce-scatter-start", "%a", 64),
    ],
)
def test_what_starts_counts_what_comes_out(result, operands, numbers):
    program = one(f"ROOT %x = {result}({operands}), replica_groups=[1,8]<=[8], to_apply=%f")
    found = collectives(program, 8, None)
    rounds = 2 if "all-reduce" in result else 1
    assert [each.wire_bytes for each in found.values()] == [rounds * 7 / 8 * 4 * numbers]


def one(line, header="HloModule m, num_partitions=8"):
    return parse(f"{header}\n\nENTRY %main (a: f32[8]) -> f32[8] {{\n  %a = f32[8]{{0}} parameter(0)\n  {line}\n}}\n")


@pytest.mark.parametrize(
    ("groups", "network"),
    [
        ("[4,2]<=[8]", False),
        ("[2,4]<=[8]", False),  # each fills one slice
        ("[4,2]<=[2,4]T(1,0)", True),  # two devices, of two slices
        ("[1,8]<=[8]", True),
        ("{{0,1},{2,3},{4,5},{6,7}}", False),
        ("{{0,4},{1,5},{2,6},{3,7}}", True),
        ("mesh['data'=2,'fsdp'=4] {'fsdp'}", False),
        ("mesh['data'=2,'fsdp'=4] {'data'}", True),
    ],
)
def test_a_group_that_spans_slices_goes_over_the_network(groups, network):
    chip, slices = CHIPS["v5e"], [0, 0, 0, 0, 1, 1, 1, 1]
    program = one(f"ROOT %sum = f32[1000]{{0}} all-reduce(%a), replica_groups={groups}, to_apply=%add")
    found = collectives(program, 8, chip, slices)["all-reduce"]
    assert found.seconds == found.wire_bytes / (chip.network if network else chip.ring)
    assert collectives(program, 8, chip)["all-reduce"].seconds == found.wire_bytes / chip.ring  # one slice


@pytest.mark.parametrize(("pairs", "network"), [("{{0,1},{4,5}}", False), ("{{0,1},{3,4}}", True)])
def test_a_permutation_that_crosses_slices_goes_over_the_network(pairs, network):
    chip = CHIPS["v5e"]
    program = one(f"ROOT %p = f32[1000]{{0}} collective-permute(%a), source_target_pairs={pairs}")
    found = collectives(program, 8, chip, [0] * 4 + [1] * 4)["collective-permute"]
    assert found.wire_bytes == 4000 and found.seconds == 4000 / (chip.network if network else chip.ring)


@pytest.mark.parametrize(
    ("kind", "sent"), [("ALL_REDUCE", 2 * 2 / 3), ("ALL_GATHER", 2), ("REDUCE_SCATTER", 2 / 3), ("ONE_TO_ONE", 1)]
)
def test_what_libtpu_sends_between_slices_is_counted(kind, sent):
    line = "ROOT %s = (f32[1000]{0}, u32[], token[]) send(%a, %after), channel_id=2, is_host_transfer=true, "
    line += f'frontend_attributes={{_xla_megascale_target="{{1,2,3}}x{{0:1}}",_xla_megascale_transfer_type="{kind}"}}'
    chip, slices = CHIPS["v5e"], [0, 0, 1, 1, 2, 2]
    (name, found), *others = collectives(one(line, "HloModule m, num_partitions=2"), 6, chip, slices).items()
    assert name == f"{kind.lower().replace('_', '-')} between slices" and not others
    assert found.wire_bytes == pytest.approx(sent * 4000) and found.seconds == found.wire_bytes / chip.network


def test_without_a_chip_the_time_of_collectives_is_not_known():
    assert math.isnan(collectives(parse(TEXT), 32, None)["all-reduce"].seconds)


def test_operations_without_cycles_are_counted():
    total, without = operations(parse(TEXT))
    # in the loop 12 times: work, with cycles; at its end: meanwhile, scattered and one that starts without, last with
    assert (total, without) == (12 + 4, 3)


def test_a_program_of_this_machine_is_read_too():
    compiled = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda i, x: x @ x, x)).lower(jnp.ones((8, 8))).compile()
    program = parse(compiled.as_text())
    loops = [(instruction, times) for instruction, times in program.runs() if instruction.opcode == "while"]
    assert [program.trips(loop) for loop, _ in loops] == [5] * len(loops)


def test_every_branch_of_a_choice_is_counted():
    branches = [jnp.sin, lambda x: x @ x, lambda x: x @ x @ x]
    switch = jax.jit(lambda n, x: jax.lax.switch(n, branches, x)).lower(0, jnp.ones((8, 8))).compile()
    program = parse(switch.as_text())
    (choice,) = [one for one, _ in program.runs() if one.opcode == "conditional"]
    assert len(called(choice)) == 3 and all(name in program.computations for name in called(choice))
