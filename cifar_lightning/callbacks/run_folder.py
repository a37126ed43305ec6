"""The folder of the run that a trainer keeps, for the process that writes in it."""

from pathlib import Path

import lightning.pytorch as L


def run_folder(trainer: L.Trainer) -> Path | None:
    """The folder in the first process; None in the others, and where no run is kept.

    All processes have to ask, since they agree on it.
    """
    folder = trainer.log_dir
    return Path(folder) if folder and trainer.is_global_zero else None
