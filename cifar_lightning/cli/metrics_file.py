"""metrics.csv of a run."""

import sys

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn


class MetricsFile(CSVLogger):
    """Lightning's metrics.csv, whose rows wait where another program holds it on Windows, as Excel does."""

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
