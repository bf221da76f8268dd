"""A plan as JSON, and the word on where each of its figures comes from."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from mmjax.planning.plan import Plan

EVIDENCE = "compiler"
ASSUMED = "assumption"
COUNTED = "counted"
MEASURED = "measured"


def to_json(plan: Plan) -> dict[str, Any]:
    """Returns everything, what follows from it, and `sources`; None is what is not known.

    `chip` is what is assumed: clock, peak and bandwidths; its memory may be measured.
    """
    derived = {
        "fits": plan.memory.fits,
        "compute_seconds": plan.compute_seconds,
        "communication_seconds": plan.communication_seconds,
        "mfu_without_communication": plan.mfu(plan.compute_seconds),
        "mfu_with_communication": plan.mfu(plan.seconds),
        "examples_per_second_per_host": plan.examples_per_host,
        "megabytes_per_second_per_host": plan.bytes_per_host / 1e6,
        "chip_hours_per_billion_examples": plan.chip_hours,
        "sources": sources(plan),
    }
    return _without_nan(dataclasses.asdict(plan) | derived)


def pipeline_json(plan: Plan, rate: float | None, why: str) -> dict[str, Any]:
    """Returns the input pipeline of this machine beside what the plan needs of a host.

    Args:
      plan: of a step.
      rate: examples a second, None where it was not measured.
      why: it was not.
    """
    return _without_nan(
        {
            "pipeline_examples_per_second": rate,
            "pipeline_megabytes_per_second": None if rate is None else rate * plan.batch_bytes / plan.batch_size / 1e6,
            "pipeline_machines_per_host": None if rate is None else machines(plan, rate),
            "pipeline_not_measured": why or None,
        }
    )


def machines(plan: Plan, rate: float) -> int | None:
    """Returns how many machines of that rate feed one host; None where the step's time is not known."""
    return None if math.isnan(plan.examples_per_host) else math.ceil(plan.examples_per_host / rate)


def time_from(plan: Plan) -> str:
    """Returns where the time of the computation comes from."""
    by_cycles = plan.chip is not None and plan.chip.clock is not None
    return f"{EVIDENCE}, {ASSUMED}" if by_cycles else f"{COUNTED}, {ASSUMED}"  # cycles, or a roofline, at a clock


def capacity_from(plan: Plan) -> str:
    """Returns where the room of a device comes from: a compiler that refuses a program says it."""
    if plan.memory.fits or plan.memory.arguments:
        return plan.chip.memory_from if plan.chip else ASSUMED
    return EVIDENCE


def sources(plan: Plan) -> dict[str, str]:
    """Returns figure of the JSON -> where it comes from; several words: it follows from all of them."""
    time, sent = time_from(plan), f"{EVIDENCE}, {ASSUMED}"
    fit = f"{EVIDENCE}, {capacity_from(plan)}" if capacity_from(plan) != EVIDENCE else EVIDENCE
    return {
        "parameters": COUNTED,
        "model_flops": COUNTED,
        "hardware_flops": COUNTED,
        "batch_bytes": COUNTED,
        "memory.state": COUNTED,
        **{f"memory.{name}": EVIDENCE for name in ("arguments", "outputs", "temporaries", "needed", "largest")},
        "memory.capacity": capacity_from(plan),
        "fits": fit,
        "operations": EVIDENCE,
        "without_cycles": EVIDENCE,
        "parts": time,
        "compute_seconds": time,
        "collectives.count": EVIDENCE,
        "collectives.wire_bytes": EVIDENCE,
        "collectives.seconds": sent,
        "communication_seconds": sent,
        "mfu_without_communication": f"{COUNTED}, {time}".replace(f"{COUNTED}, {COUNTED}", COUNTED),
        "mfu_with_communication": f"{COUNTED}, {sent}",
        "examples_per_second_per_host": time,
        "megabytes_per_second_per_host": time,
        "chip_hours_per_billion_examples": sent,
        "chip": ASSUMED,
        "chip.memory": plan.chip.memory_from if plan.chip else ASSUMED,
        "peak_flops": ASSUMED,
        "compile_seconds": MEASURED,
        "pipeline_examples_per_second": MEASURED,
        "pipeline_megabytes_per_second": f"{MEASURED}, {COUNTED}",
        "pipeline_machines_per_host": f"{MEASURED}, {time}",
    }


def _without_nan(value: Any) -> Any:
    """Returns value with None for every nan, which JSON has not."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if value != value else value
