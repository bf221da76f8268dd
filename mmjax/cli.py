"""The command line: train, evaluate, plan, doctor. Mistakes end in one sentence, never in a traceback."""

from __future__ import annotations

import argparse
import json
import logging
import os
import pathlib
import sys

from mmjax.core.errors import TemporaryError, UserError
from mmjax.planning import command as planning


def parser() -> argparse.ArgumentParser:
    """Returns the parser of `python -m mmjax`."""
    main = argparse.ArgumentParser(prog="python -m mmjax", description="Train models over several modalities in JAX.")
    commands = main.add_subparsers(dest="command", required=True)
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "--config", required=True, metavar="FILE[:SIZE]", help="configs/openmoji.py, configs/clip.py:B/16"
    )
    config.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override one value of the config"
    )
    job = argparse.ArgumentParser(add_help=False)
    job.add_argument(
        "--distributed", action="store_true", help="several processes: TPU pod, GKE, Slurm or Open MPI knows"
    )
    job.add_argument("--coordinator", metavar="HOST:PORT", help="several processes: address of process 0")
    job.add_argument("--num-processes", type=int, help="several processes: how many")
    job.add_argument("--process-id", type=int, help="several processes: which of them this is")
    train = commands.add_parser("train", help="train, or go on training, the run in --workdir", parents=[config, job])
    train.add_argument("--workdir", help="folder of the run: checkpoints, metrics, results")
    train.add_argument(
        "--data", metavar="SPEC", help="train on this: tfds:NAME, 'shards/*.tar', captions.csv[:FOLDER], a folder"
    )
    train.add_argument("--init-from", metavar="RUN", help="begin with the weights of another run (weights only)")
    train.add_argument("--print-config", action="store_true", help="show the config and stop")
    evaluate = commands.add_parser("evaluate", help="evaluate a run", parents=[job])
    evaluate.add_argument("--run", required=True, help="workdir of the run")
    evaluate.add_argument("--data", metavar="SPEC", help="evaluate on this instead of the run's own held-out data")
    evaluate.add_argument("--train-data", metavar="SPEC", help="labelled data that linear probe and k-NN learn from")
    evaluate.add_argument("--class-names", metavar="FILE", help="zero-shot: what the classes are called, one a line")
    evaluate.add_argument("--templates", metavar="FILE", help="zero-shot: prompts, one a line, {} for the name")
    evaluate.add_argument("--step", type=_step, help="checkpoint to evaluate: a number or 'best' (default: the newest)")
    evaluate.add_argument(
        "--allow-import",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package that the run's config may name classes of; you trust it",
    )
    plan = commands.add_parser(
        "plan", help="memory, time and cost of a run on devices that need not be here", parents=[config]
    )
    planning.add_arguments(plan)
    doctor = commands.add_parser(
        "doctor", help="what is wrong with this machine, or this job, before it trains", parents=[job]
    )
    doctor.add_argument("--workdir", help="look at this folder's file system too")
    doctor.add_argument("--config", metavar="FILE[:SIZE]", help="measure this config's input pipeline too")
    doctor.add_argument("--data", metavar="SPEC", help="look at this data too, as --data of train")
    doctor.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    return main


def _step(text: str) -> int | str:
    """Returns the number of a checkpoint, or 'best'."""
    if text != "best" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'best'")
    return text if text == "best" else int(text)


def main(arguments: list[str]) -> int:
    """Runs one command and returns its exit code.

    0: done; 2: a mistake of the user; 69: another process of the job is gone, or what may be back (a store, a lock);
    75: stopped by a signal and saved.
    """
    options = parser().parse_args(arguments)
    quiet_and_cached()
    import jax

    from mmjax.core import distributed
    from mmjax.training.stop import EXIT_CODE, Interrupted

    try:
        return {"train": train, "evaluate": evaluate, "plan": planning.main, "doctor": doctor}[options.command](options)
    except UserError as error:
        print(f"mmjax: {error}", file=sys.stderr)
        return distributed.leave(distributed.UNAVAILABLE if isinstance(error, TemporaryError) else 2)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            print(f"mmjax: {_out_of_memory(distributed.first_line(error))}", file=sys.stderr)
            return distributed.leave(2)
        if jax.process_count() == 1:
            raise
        print(f"mmjax: {distributed.step_failed(error)}", file=sys.stderr)
        return distributed.leave(distributed.UNAVAILABLE)
    except Interrupted as stopped:
        print(f"mmjax: {stopped}", file=sys.stderr)
        return EXIT_CODE
    except KeyboardInterrupt:  # before the loop, which has a handler of its own
        print("mmjax: stopped; there was nothing to save.", file=sys.stderr)
        return 130
    except Exception:  # whatever it is, the others of the job must not wait for this process
        distributed.leave(1)
        raise


def _out_of_memory(why: str) -> str:
    return (
        f"a device has too little memory ({why}). `python -m mmjax plan` with the same --config and --set says what "
        "takes it and which change makes it fit; fewer examples a step, more micro_batches or a sharded state "
        "(mesh.fsdp) need less."
    )


def quiet_and_cached() -> None:
    """Silences the chatter of TensorFlow and of Orbax's threads, and keeps compiled programs across runs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("absl", "asyncio"):  # what fails in a save is raised too, and said once
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import jax

    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "mmjax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))


def train(options: argparse.Namespace) -> int:
    """Trains, then shows the results and draws retrieval.png or attribution.png where an evaluation has one."""
    import jax
    from rich.console import Console

    from mmjax.core.accelerators import idle_accelerators
    from mmjax.core.override import describe
    from mmjax.core.permissions import safe_permissions
    from mmjax.training.loop import fit

    config = _config(options)
    if options.print_config:
        print(describe(config))
        return 0
    if not options.workdir:
        raise UserError("--workdir is missing: name the folder for this run, as in --workdir runs/openmoji.")
    _join_processes(options)
    console = Console(quiet=jax.process_index() > 0)
    idle = {} if jax.config.jax_platforms else idle_accelerators()  # it may have been told to leave them
    for name, install in idle.items():
        console.print(f"This machine has a {name}, but JAX computes on the CPU: {install}", markup=False)
    metrics = fit(config, options.workdir, console)
    with safe_permissions():
        _report(options.workdir, metrics, console)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Looks at this machine, or at all of a job, and prints what is wrong with it."""
    from mmjax.doctor.command import main as run

    _join_processes(options)
    return run(options)


def _join_processes(options: argparse.Namespace) -> None:
    from mmjax.core.distributed import join

    join(options.coordinator, options.num_processes, options.process_id, options.distributed)


def _config(options: argparse.Namespace):
    import fiddle as fdl

    from mmjax.core.config import load_config
    from mmjax.core.override import override
    from mmjax.data.spec import point_at
    from mmjax.training.checkpoint import InitFrom

    config = load_config(options.config)
    if options.data:
        point_at(config.data, options.data)
    if options.init_from:
        config.init_from = config.init_from or fdl.Config(InitFrom, "")
        config.init_from.path = options.init_from
    for assignment in options.set:
        override(config, assignment)
    return config


def _report(workdir: str, metrics: dict[str, float], console) -> None:
    """Shows the results, the pictures and the checkpoint; every process calls it, process 0 writes."""
    from mmjax.evaluation.report import results_table
    from mmjax.notebook.report import retrieval_report
    from mmjax.notebook.why_report import attribution_report
    from mmjax.training.checkpoint import Checkpoints
    from mmjax.training.prepare import write_text

    if metrics:
        console.print(results_table(metrics, title="held-out results"))
        write_text(pathlib.Path(workdir) / "results.json", json.dumps(metrics, indent=1) + "\n")
    shown = []
    for draw in (retrieval_report, attribution_report):
        try:
            shown += [f"picture: {path}" for path in draw(workdir)]
        except UserError as error:  # the training is done and saved; a picture less does not undo that
            shown.append(f"no picture: {error}")
    checkpoints = Checkpoints(workdir)
    shown.append(f"checkpoint: {checkpoints.directory / str(checkpoints.latest())}")
    checkpoints.close()
    console.print("\n".join(shown), soft_wrap=True, highlight=False, markup=False, emoji=False)


def evaluate(options: argparse.Namespace) -> int:
    """Evaluates a run alone, over all devices of the job, and prints its table; of several processes, process 0."""
    import jax
    from rich.console import Console

    from mmjax.core.mesh import make_mesh
    from mmjax.evaluation.report import results_table
    from mmjax.notebook.loaded import load

    if options.train_data and not options.data:
        raise UserError("--train-data needs --data: the labelled data that is judged on what is learned.")
    if (options.class_names or options.templates) and not options.data:
        raise UserError("--class-names and --templates need --data: the labelled pictures that they are for.")
    _join_processes(options)
    mesh = make_mesh() if jax.process_count() > 1 else None
    run = load(options.run, step=options.step, allow=options.allow_import, mesh=mesh)
    metrics = run.evaluate(
        options.data, options.train_data, class_names=options.class_names, templates=options.templates
    )
    Console(quiet=jax.process_index() > 0).print(results_table(metrics, title=f"{options.run}, step {run.step}"))
    return 0
