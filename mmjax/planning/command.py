"""`python -m mmjax plan`: what a run would be on devices that one need not own."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmjax.core.errors import UserError

if TYPE_CHECKING:
    import fiddle as fdl
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command; --config and --set are those of training."""
    parser.add_argument("--topology", required=True, help="v5e:16x16, v5p:4x4x4, 2*v5e:16x16, cpu:8, or gpu (here)")
    parser.add_argument("--batch", type=int, help="global batch; default: that of the config")
    parser.add_argument("--mesh", metavar="AXIS=SIZE,...", help="data=32,fsdp=8; default: that of the config")
    parser.add_argument("--search", action="store_true", help="try meshes, remat policies and micro-batches too")
    parser.add_argument("--no-rate", action="store_true", help="do not measure this machine's input pipeline")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def main(options: argparse.Namespace) -> int:
    """Plans and prints; returns 0 where the step fits, 1 where it does not."""
    import jax
    from rich.console import Console

    from mmjax.core.config import load_config
    from mmjax.planning.compile import configured
    from mmjax.planning.plan import make_plan
    from mmjax.planning.report import report, search_table
    from mmjax.planning.search import Choice, first_fit, search
    from mmjax.planning.topology import get_topology

    console = Console(stderr=options.json)
    jax.config.update("jax_enable_compilation_cache", False)  # of programs for chips that are not here none can be read
    with quiet():
        topology = get_topology(options.topology)
    config = configured(load_config(options.config), topology, [*_settings(options), *options.set])

    def each(choice, found):
        what = f"not possible: {found}"
        if not isinstance(found, UserError):
            what = f"{'fits' if found.memory.fits else 'does not fit'}, {found.compile_seconds:.0f} s to compile"
        console.print(f"{choice}: {what}", highlight=False)

    tried = search(config, topology, each) if options.search else {Choice(): make_plan(config, topology)}
    plan = tried[Choice()]
    if not plan.memory.fits and not options.search:
        first_fit(config, topology, tried, each)
    rate = None if options.no_rate else _rate(config, console)
    if options.json:
        others = {str(choice): one.to_json() for choice, one in tried.items()}
        print(json.dumps(plan.to_json() | {"pipeline_examples_per_second": rate, "tried": others}, indent=1))
    else:
        console.print(report(plan, topology.chip, rate))
        if len(tried) > 1:
            console.print(search_table(tried))
    return 0 if plan.memory.fits else 1


def _settings(options: argparse.Namespace) -> list[str]:
    """Returns --batch and --mesh as PATH=VALUE."""
    found = [] if options.batch is None else [f"data.batch_size={options.batch}"]
    for part in options.mesh.split(",") if options.mesh else []:
        if "=" not in part:
            raise UserError(f"--mesh {options.mesh}: expected AXIS=SIZE,... as in data=32,fsdp=8.")
        found.append(f"mesh.{part.strip()}")
    return found


def _rate(config: fdl.Config, console: Console) -> float | None:
    """Returns the examples a second of the pipeline, None where it cannot run here."""
    from mmjax.training.rate import pipeline_rate

    try:
        return pipeline_rate(config)
    except UserError as error:
        console.print(f"the input pipeline was not measured: {error}", style="dim", highlight=False)
        return None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what libtpu writes to the error stream when it finds no TPU; shows it where something else goes wrong."""
    import tempfile

    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception as error:  # of any kind: it is raised again
            if not isinstance(error, UserError):
                kept.seek(0)
                os.write(saved, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
