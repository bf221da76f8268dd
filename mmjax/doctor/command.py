"""`python -m mmjax doctor`: looks, measures, and says how to mend what is wrong."""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Iterator

import jax
from rich.console import Console
from rich.table import Table

from mmjax.core.config import load_config
from mmjax.core.errors import UserError
from mmjax.core.permissions import safe_permissions
from mmjax.data.spec import point_at
from mmjax.doctor import data, job, machine
from mmjax.doctor.findings import DOUBTFUL, FINE, WRONG, Finding, of_all_processes
from mmjax.training.prepare import make_workdir
from mmjax.training.rate import pipeline_rate

_STYLES = {FINE: "green", DOUBTFUL: "yellow", WRONG: "red"}


def main(options: argparse.Namespace) -> int:
    """Prints the findings of all processes, process 0 alone; returns 0, or 1 everywhere where something is wrong."""
    findings = of_all_processes(list(_findings(options)))
    if jax.process_index() == 0:
        if options.json:
            print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        else:
            Console().print(_table(findings))
    return int(any(finding.state == WRONG for finding in findings))


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    yield from machine.packages()
    yield from machine.host()
    yield from machine.devices()
    yield from job.processes()
    yield from job.collectives()
    if options.workdir:
        yield from _folder(options.workdir)
        yield from job.shared(pathlib.Path(options.workdir))
    if options.data:
        yield data.look(options.data)
    if options.config:
        yield _rate(options.config, options.data)


def _folder(workdir: str) -> Iterator[Finding]:
    try:
        with safe_permissions():
            folder = make_workdir(workdir)
        yield from machine.folder(folder)
    except UserError as error:
        yield Finding(f"folder {workdir}", str(error), WRONG, "choose another --workdir, or mend its rights")


def _rate(name: str, spec: str | None) -> Finding:
    what = f"input of {name}" + (f" on {spec}" if spec else "")
    try:
        config = load_config(name)
        if spec:
            point_at(config.data, spec)
        return Finding(what, f"{pipeline_rate(config):,.0f} examples/s on this machine")
    except UserError as error:
        return Finding(what, str(error), WRONG, "mend the config or its data")


def _table(findings: list[Finding]) -> Table:
    table = Table("", "found", "", "how to mend it", title="mmjax doctor", title_justify="left")
    for finding in findings:
        style = _STYLES[finding.state]
        table.add_row(finding.what, finding.found, f"[{style}]{finding.state}[/]", finding.advice)
    return table
