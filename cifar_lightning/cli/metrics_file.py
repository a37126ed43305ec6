"""metrics.csv of a run."""

import sys
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from cifar_lightning import checkpoint as checkpoints
from cifar_lightning.runs import Run


class MetricsFile(CSVLogger):
    """Lightning's metrics.csv, whose rows wait where another program holds it on Windows, as Excel does."""

    def go_on(self, run: Run, checkpoint: dict[str, Any]) -> None:
        """Begin with what a run had measured when it wrote a checkpoint."""
        done = checkpoints.validated(checkpoint) or not checkpoints.position(checkpoint)["batch"]
        rows = run.metrics(checkpoint["global_step"], done, checkpoints.last_row(checkpoint))
        self.experiment.metrics.extend(rows)  # which removes the file that they are read from
        self.save()

    @rank_zero_only
    def save(self) -> None:
        keys = [*self.experiment.metrics_keys]  # to which new ones are added before the file is opened
        try:
            super().save()
        except PermissionError:
            self.experiment.metrics_keys = keys
            if sys.platform != "win32":
                raise
            rank_zero_warn("another program holds metrics.csv: its rows are written when that has closed it")
