"""What libtpu says of programs that have no room, in its own words."""

import types

import jax
import pytest

from mmjax.core.errors import UserError
from mmjax.core.mesh import MeshShape, make_mesh
from mmjax.planning.chips import GIB
from mmjax.planning.compile import Step
from mmjax.planning.memory import memory_of_refused
from mmjax.planning.refusal import DoesNotFit, refusal

EARLY = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
    "temporaries (36.52G) exceeds available HBM (15.75G). HLO module: jit__lambda.\nSee https://openxla.org/..."
)
LATE = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. \
Used 20.00G of 15.75G hbm. Exceeded hbm capacity by 4.25G.

Total hbm usage >= 20.25G:
    reserved        256.00M
    program          20.00G
    arguments            0B

  Largest program allocations in hbm:

  1. Size: 14.00G
     Operator: op_type="dot_general" op_name="jit(step)/jvp(M)/encoders_image/attention/attention_core/dot"
     Shape: bf16[64,12,196,196]{3,2,1,0:T(8,128)(2,1)}
     Unpadded size: 1.09G
     Extra memory due to padding: 12.91G (12.8x expansion)
     Allocation type: HLO temp
     ==========================

  2. Size: 512.00M
     Shape: f32[128,1024]{1,0:T(8,128)}
     Unpadded size: 512.00M
     Allocation type: HLO temp
     ==========================
"""
ON_CHIP = (
    "RESOURCE_EXHAUSTED: Allocation (size=268435456) would exceed memory (size=134217728) :: #allocation3 "
    "[shape = 'u8[268435456]{0}', space=vmem, size = 0x10000000, scoped]",
    "INTERNAL: Scoped allocation with size 17.00M and limit 16.00M exceeded scoped vmem limit by 1.00M.",
    "Ran out of memory in memory space smem. Used 2.00M of 1.00M smem. Exceeded smem capacity by 1M.",
)


def test_both_ways_of_having_no_hbm_are_told():
    early, late = refusal(EARLY), refusal(LATE)
    assert isinstance(early, DoesNotFit) and early.needed == int(36.52 * GIB) and early.available == int(15.75 * GIB)
    assert not early.largest  # it names none
    assert early.temporaries and not late.temporaries
    assert isinstance(late, DoesNotFit) and late.needed == 20 * GIB and late.available == int(15.75 * GIB)
    assert late.largest == [
        (14 * GIB, "bf16[64,12,196,196] image: attention core"),
        (GIB // 2, "f32[128,1024] other"),
    ]


@pytest.mark.parametrize(("message", "space"), zip(ON_CHIP, ("vmem", "vmem", "smem"), strict=True))
def test_memories_on_the_chip_are_a_sentence(message, space):
    found = refusal(message)
    assert isinstance(found, UserError) and f"no room in {space}" in str(found)


def test_other_errors_are_no_lack_of_memory():
    assert refusal("INVALID_ARGUMENT: No such compile option: 'xla_x'") is None


def test_of_temporaries_alone_the_state_is_added():
    leaf = jax.ShapeDtypeStruct((8, 4), "float32", sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    step = types.SimpleNamespace(trainer=types.SimpleNamespace(abstract={"params": leaf}), batch=[leaf])
    assert memory_of_refused(step, refusal(EARLY)).needed == int(36.52 * GIB) + 2 * 8 * 4 * 4
    assert memory_of_refused(step, refusal(LATE)).needed == 20 * GIB


def test_a_compiler_that_fails_is_a_sentence_and_no_trace():
    """An internal error of one choice must not cost the others of a search."""

    def fail():
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure (x.cc:1)\n more")

    traced = types.SimpleNamespace(lower=lambda: types.SimpleNamespace(compile=fail))
    step = Step(None, types.SimpleNamespace(mesh=make_mesh(MeshShape(), jax.devices()[:1])), None, traced)
    with pytest.raises(UserError, match=r"^the compiler fails on this step: INTERNAL: RET_CHECK failure \(x.cc:1\)$"):
        step.compile()
