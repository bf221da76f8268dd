"""Joining the processes of a job, one a host or one an accelerator."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import subprocess
import sys
import threading

import jax

from mmjax.core import herald
from mmjax.core.errors import UserError

HEARTBEAT = 40
"""Seconds of silence after which a process counts as gone; the others then stop. Sent by C++, whatever Python does."""

LINGER = 15
"""Seconds that a process which fails waits for the others to end with it."""

UNAVAILABLE = 69
"""What a process exits with when another one is gone, where Python can choose, or a store: EX_UNAVAILABLE."""


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    detect: bool = False,
) -> None:
    """Joins this process to the others of its job; does nothing where nothing is given.

    When one of them dies, the others end within a minute with a sentence: see core.herald.

    Args:
      coordinator: HOST:PORT of process 0, which all processes name.
      num_processes: how many there are.
      process_id: which of them this is, from 0.
      detect: ask the environment for all three: TPU pods and multi-slice jobs, GKE, Kubernetes, Slurm (`srun`), Open
        MPI (`mpirun`), as `jax.distributed.initialize` does. Slurm and Open MPI give each of several processes of a
        node one GPU, the only process of a node all of them; JAX_LOCAL_DEVICE_IDS says otherwise.

    Raises:
      UserError: some of the three but not all, no environment that is known, or the others cannot be reached.
    """
    given = (coordinator, num_processes, process_id)
    if detect and given != (None, None, None):
        raise UserError(
            "--distributed asks the environment who the processes are: leave --coordinator and the rest out."
        )
    if not detect and given == (None, None, None):
        return
    if not detect and None in given:
        raise UserError("--coordinator, --num-processes and --process-id go together: give all three, on each process.")
    if not detect and not 0 <= process_id < num_processes:
        raise UserError(
            f"--process-id {process_id} must be from 0 to {num_processes - 1}: --num-processes is {num_processes}."
        )
    try:
        jax.config.update("jax_enable_preemption_service", False)  # it swallows SIGTERM; training.stop has its own
        devices = [] if _alone_on_its_node() else None
        jax.distributed.initialize(*given, local_device_ids=devices, heartbeat_timeout_seconds=HEARTBEAT)
    except (ValueError, RuntimeError) as error:
        if detect:
            raise UserError(
                "--distributed finds no job to join: it knows TPU pods, GKE, Kubernetes, Slurm (srun) and Open MPI "
                f"(mpirun) by their environment; else give --coordinator HOST:PORT and the rest ({error})."
            ) from error
        raise UserError(f"process {process_id} of {num_processes} cannot join: {error}") from error
    if jax.process_count() > 1:
        _start_herald(jax.process_index(), jax.process_count())


def _alone_on_its_node() -> bool:
    """Says whether Slurm or Open MPI started one process on each node, where jax would take one GPU of several."""
    names = ("SLURM_STEP_TASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE")  # '1(x4)', '2,1'; '1'
    tasks = next((os.environ[name] for name in names if name in os.environ), "")
    return "JAX_LOCAL_DEVICE_IDS" not in os.environ and re.fullmatch(r"1(\(x\d+\))?", tasks) is not None


def _start_herald(process: int, count: int) -> None:
    """Leads what C++ writes to standard error through a herald; what Python writes goes where it went."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    command = [sys.executable, "-I", "-S", herald.__file__, str(process), str(count)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    os.dup2(child.stdin.fileno(), 2)
    child.stdin.close()
    atexit.register(_leave)


def _leave() -> None:
    with contextlib.suppress(OSError):  # the herald was killed
        os.write(2, herald.LEFT + b"\n")


def place() -> tuple[int, int]:
    """Returns (which process of the job this is, how many there are); no device is looked for to find out."""
    return (jax.process_index(), jax.process_count()) if jax.distributed.is_initialized() else (0, 1)


def leave(code: int) -> int:
    """Returns code, with which a process that failed is about to exit; the others are not waited for without end.

    At exit jax waits for all processes of the job, for minutes. Those that failed alike come at once; others may wait
    for this one in their turn, so it goes after LINGER seconds, and they notice.
    """
    if jax.distributed.is_initialized():
        timer = threading.Timer(LINGER, _exit, [code])
        timer.daemon = True
        timer.start()
    return code


def _exit(code: int) -> None:
    _leave()
    sys.stdout.flush()
    os._exit(code)


def step_failed(error: Exception) -> str:
    """Returns a sentence on an error of the jax runtime in a job of several processes."""
    return (
        f"process {jax.process_index()} of {jax.process_count()} stops: a step failed, most likely since another "
        f"process of the job is gone ({first_line(error)}). Start all of them again with the same command: the job "
        "goes on from its last complete checkpoint."
    )


def first_line(error: Exception) -> str:
    """Returns what an error of the jax runtime says first; more of it is for its developers."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
