"""Joining the processes of a job, one a host or one an accelerator."""

from __future__ import annotations

import jax

from mmjax.core.errors import UserError


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    detect: bool = False,
) -> None:
    """Joins this process to the others of its job; does nothing where nothing is given.

    Args:
      coordinator: HOST:PORT of process 0, which all processes name.
      num_processes: how many there are.
      process_id: which of them this is, from 0.
      detect: ask the environment for all three: TPU pods and multi-slice jobs, GKE, Kubernetes, Slurm (`srun`), Open
        MPI (`mpirun`), as `jax.distributed.initialize` does.

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
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        if detect:
            raise UserError(
                "--distributed finds no job to join: it knows TPU pods, GKE, Kubernetes, Slurm (srun) and Open MPI "
                f"(mpirun) by their environment; else give --coordinator HOST:PORT and the rest ({error})."
            ) from error
        raise UserError(f"process {process_id} of {num_processes} cannot join: {error}") from error
