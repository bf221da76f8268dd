"""`python -m mmjax plan`: what a run would be on devices that one need not own."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mmjax.core.errors import UserError, one_of

if TYPE_CHECKING:
    import fiddle as fdl
    from rich.console import Console

    from mmjax.planning.choice import Choice
    from mmjax.planning.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command; --config and --set are those of training."""
    parser.add_argument("--topology", required=True, help="v5e:16x16, v5p:4x4x4, 2*v5e:16x16, cpu:8, or gpu (here)")
    parser.add_argument("--batch", type=int, help="global batch; default: that of the config")
    parser.add_argument(
        "--mesh",
        metavar="AXIS=SIZE,...",
        help="data=32,fsdp=8; default: that of the config (in training: --set mesh.fsdp=8)",
    )
    parser.add_argument(
        "--data", metavar="SPEC", help="measure the pipeline on this, as --data of train; plans need no data"
    )
    parser.add_argument("--search", action="store_true", help="try meshes, remat, micro-batches and batch parts")
    parser.add_argument("--no-rate", action="store_true", help="do not measure this machine's input pipeline")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def main(options: argparse.Namespace) -> int:
    """Plans and prints; returns 0 where the step fits, 1 where it does not."""
    import jax
    from rich.console import Console

    from mmjax.core.config import load_config
    from mmjax.planning.compile import configured
    from mmjax.planning.plan import make_plan
    from mmjax.planning.search import Choice, first_fit, search
    from mmjax.planning.topology import get_topology

    console = Console(stderr=options.json)
    jax.config.update("jax_enable_compilation_cache", False)  # of programs for chips that are not here none can be read
    with quiet():
        topology = get_topology(options.topology)
    config = configured(load_config(options.config), topology, [*_settings(options), *options.set], options.data)

    def each(choice, found):
        what = f"not possible: {found}"
        if not isinstance(found, UserError):
            what = f"{'fits' if found.memory.fits else 'does not fit'}, {found.compile_seconds:.0f} s to compile"
        console.print(f"{choice}: {what}", highlight=False)

    tried = search(config, topology, each) if options.search else {Choice(): make_plan(config, topology)}
    if not tried[Choice()].memory.fits and not options.search:
        first_fit(config, topology, tried, each)
    _print(options, console, config, tried)
    return 0 if tried[Choice()].memory.fits else 1


def _print(options: argparse.Namespace, console: Console, config: fdl.Config, tried: Mapping[Choice, Plan]) -> None:
    """Prints the plan, the others that were tried, and which change makes it fit: as JSON or as tables."""
    from mmjax.planning.choice import Choice
    from mmjax.planning.record import pipeline_json, to_json
    from mmjax.planning.report import report, search_table
    from mmjax.planning.search import advice

    plan, sentence = tried[Choice()], advice(config, tried)
    rate, why = (None, "--no-rate") if options.no_rate else _rate(config)
    if options.json:
        others = {str(choice): to_json(one) for choice, one in tried.items()}
        pipeline = pipeline_json(plan, rate, why)
        print(json.dumps(to_json(plan) | pipeline | {"advice": sentence or None, "tried": others}, indent=1))
        return
    console.print(report(plan, rate, why))
    if len(tried) > 1:
        console.print(search_table(tried))
    console.print(sentence, highlight=False, soft_wrap=True, markup=False, end="\n" if sentence else "")


def _settings(options: argparse.Namespace) -> list[str]:
    """Returns --batch and --mesh as PATH=VALUE."""
    from mmjax.core.mesh import AXES

    found = [] if options.batch is None else [f"data.batch_size={options.batch}"]
    for part in options.mesh.split(",") if options.mesh else []:
        if "=" not in part:
            raise UserError(f"--mesh {options.mesh}: expected AXIS=SIZE,... as in data=32,fsdp=8.")
        one_of(part.partition("=")[0].strip(), AXES, f"--mesh {options.mesh}")
        found.append(f"mesh.{part.strip()}")
    return found


def _rate(config: fdl.Config) -> tuple[float | None, str]:
    """Returns the examples a second of the pipeline and '', or None and why it cannot run here."""
    from mmjax.training.rate import pipeline_rate

    try:
        return pipeline_rate(config), ""
    except UserError as error:
        return None, str(error)


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
