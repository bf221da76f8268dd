"""Whether a folder is that of a run."""

from __future__ import annotations

import os

from etils import epath

from mmjax.core.errors import UserError, listed


def check_run(directory: str | os.PathLike[str], what: str, more: str = "") -> epath.Path:
    """Returns the path of a run's folder.

    Args:
      directory: the --workdir of the run.
      what: asks for it, the start of the message: 'load'.
      more: the end of the message, where it is no run: what else it may have been meant for.

    Raises:
      UserError: it is no run's folder; says what it is instead.
    """
    path = epath.Path(directory)
    if not path.exists():
        raise UserError(f"{what}: {str(path)!r} does not exist; expected the --workdir of a run.")
    for parent in (path, path.parent):
        if parent.name == "checkpoints":
            step = f" with step={path.name}" if path.name.isdigit() else ""
            raise UserError(
                f"{what}: {str(path)!r} is inside a run; name the run's own folder, {str(parent.parent)!r}{step}."
            )
    if not (path / "checkpoints").exists():
        children = path.iterdir() if path.is_dir() else ()
        runs = sorted(child.name for child in children if (child / "checkpoints").exists())
        hint = f" Runs in it: {listed(runs)}." if runs else ""
        raise UserError(f"{what}: {str(path)!r} is no run; it has no folder 'checkpoints'.{hint}{more and ' '}{more}")
    return path
