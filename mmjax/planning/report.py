"""A plan as tables, each with the word on where its figures come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

from mmjax.planning.chips import GIB, Chip
from mmjax.planning.choice import Choice
from mmjax.planning.plan import Plan
from mmjax.planning.record import ASSUMED, COUNTED, EVIDENCE, MEASURED, capacity_from, machines
from mmjax.planning.search import rank


def report(plan: Plan, measured: float | None = None, why: str = "") -> Group:
    """Returns the tables of a plan.

    Args:
      plan: of a step; its chip's figures are the assumptions.
      measured: examples a second of this machine's input pipeline, None where it was not measured.
      why: it was not.
    """
    tables = [_job(plan), _memory(plan)]
    if plan.chip is not None and plan.parts:
        tables.append(_time(plan, plan.chip))
    if plan.collectives:
        tables.append(_collectives(plan))
    return Group(*tables, _job_rates(plan, measured, why))


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, "from", title=title, title_justify="left")
    for column in table.columns[1:-1]:
        column.justify = "right"
    return table


def _job(plan: Plan) -> Table:
    table = _table(f"{plan.topology}, global batch {plan.batch_size:,}", "", "")
    mesh = " x ".join(f"{name}={size}" for name, size in plan.mesh.items())
    table.add_row("devices, hosts", f"{plan.devices:,}, {plan.hosts:,}", "the topology")
    table.add_row("mesh, micro-batches", f"{mesh}, {plan.micro_batches}", "the config")
    table.add_row("parameters", f"{plan.parameters:,}", COUNTED)
    each = plan.model_flops / plan.batch_size / 1e9
    again = plan.hardware_flops / plan.model_flops - 1 if plan.model_flops else 0
    table.add_row("model FLOPs a step", f"{plan.model_flops / 1e12:,.2f} T ({each:,.2f} G an example)", COUNTED)
    table.add_row("FLOPs run a step", f"{plan.hardware_flops / 1e12:,.2f} T (+{again:.1%})", COUNTED)
    table.add_row("traced and compiled in", f"{plan.compile_seconds:.0f} s", "this machine")
    return table


def _memory(plan: Plan) -> Table:
    memory = plan.memory
    if memory.capacity is None:
        title = "memory of a device"
    elif memory.fits:
        title = f"memory of a device: it fits, {_gib(memory.capacity - memory.needed)} to spare"
    else:
        title = f"memory of a device: it does NOT fit, {_gib(memory.needed - memory.capacity)} too much"
    table = _table(title, "", "")
    known = memory.arguments > 0  # of a step that the compiler refuses, only the state is
    if known:
        table.add_row("arguments (state and batch)", _gib(memory.arguments), EVIDENCE)
    for name, size in memory.state.items():
        table.add_row(f"  {name}", _gib(size), COUNTED)
    table.add_row("temporaries", _gib(memory.temporaries) if known else "", EVIDENCE if known else "not known")
    for size, what in memory.largest:
        table.add_row(f"  {what}", _gib(size), EVIDENCE)
    if not known and not memory.largest:
        table.add_row("  the compiler stopped before it placed them, and names none", "", EVIDENCE)
    if known:
        table.add_row("outputs that take no argument's place", _gib(memory.outputs), EVIDENCE)
    table.add_row("needed", _gib(memory.needed), EVIDENCE)
    if memory.capacity is not None:
        table.add_row("available", _gib(memory.capacity), capacity_from(plan))
    return table


def _time(plan: Plan, chip: Chip) -> Table:
    by = "compiler's cycles" if chip.clock else f"{COUNTED}; {ASSUMED}"
    how = f"a clock of {chip.clock / 1e9:.2f} GHz" if chip.clock else _roofline(chip)
    table = _table(f"estimated time of a step (assumed: {how})", "part of the model", "ms", "share")
    total = plan.compute_seconds
    for name, seconds in plan.parts.items():
        table.add_row(name, f"{1e3 * seconds:,.2f}", f"{seconds / total:.1%}", by)
    table.add_section()
    table.add_row("computation", f"{1e3 * total:,.2f}", "", by)
    if chip.clock:
        count = f"{plan.without_cycles:,} of {plan.operations:,}"
        table.add_row("operations without an estimate, which count 0", "", count, EVIDENCE)
    table.add_row("communication, none of it hidden", f"{1e3 * plan.communication_seconds:,.2f}", "", ASSUMED)
    table.add_row("MFU without communication", "", f"{plan.mfu(total):.1%}", "published peak")
    table.add_row("MFU with all of it", "", f"{plan.mfu(plan.seconds):.1%}", "published peak")
    return table


def _roofline(chip: Chip) -> str:
    peaks = f"{chip.peak_flops / 1e12:,.0f} TFLOP/s and {chip.bandwidth / 1e12:.2f} TB/s"
    return f"a roofline of the step: what it computes, and about what it moves, at {peaks}"


def _collectives(plan: Plan) -> Table:
    chip, title = plan.chip, "collectives (no bandwidth is known of these devices, so no time)"
    if chip is not None:
        ring, network = chip.ring / 1e9, chip.network / 1e9
        title = f"collectives (assumed: {ring:.0f} GB/s on a ring, {network:.1f} GB/s between slices)"
    table = _table(title, "kind", "count", "MB a device sends", "ms")
    source = EVIDENCE if chip is None else "compiler; assumption"
    for kind, one in plan.collectives.items():
        time = "" if chip is None else f"{1e3 * one.seconds:,.2f}"
        table.add_row(kind, f"{one.count:,}", f"{one.wire_bytes / 1e6:,.1f}", time, source)
    return table


def _job_rates(plan: Plan, measured: float | None, why: str) -> Table:
    table = _table("the run", "", "")
    known = math.isfinite(plan.seconds) and plan.seconds > 0
    if known:
        table.add_row("examples/s a host must make", f"{plan.examples_per_host:,.0f}", "the estimate")
        table.add_row("MB/s a host must make", f"{plan.bytes_per_host / 1e6:,.0f}", "the estimate")
    if measured is None:
        table.add_row("examples/s of this machine", "not measured", why)
    else:
        each = plan.batch_bytes / plan.batch_size
        table.add_row("examples/s of this machine", f"{measured:,.0f}", MEASURED)
        table.add_row("MB/s of this machine", f"{measured * each / 1e6:,.0f}", MEASURED)
    if known:
        if measured is not None:
            table.add_row("machines like this one to feed a host", f"{machines(plan, measured):,}", MEASURED)
        table.add_row("chip-hours for a billion examples", f"{plan.chip_hours:,.0f}", "the estimate")
    return table


def search_table(tried: Mapping[Choice, Plan], most: int = 8) -> Table:
    """Returns what was tried and fits, the best first."""
    fitting = {choice: plan for choice, plan in tried.items() if plan.memory.fits}
    title = f"the best of {len(fitting)} that fit, {len(tried)} tried"
    table = Table("tried", "GiB a device", "ms a step", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for choice, plan in sorted(fitting.items(), key=lambda item: rank(item[1]))[:most]:
        time = "" if math.isnan(plan.seconds) else f"{1e3 * plan.seconds:,.1f}"
        table.add_row(str(choice), f"{plan.memory.needed / GIB:,.2f}", time)
    return table


def _gib(size: Any) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 100 else f"{size / 2**20:,.2f} MiB"
