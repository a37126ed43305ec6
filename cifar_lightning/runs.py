"""Runs: the folders `runs/<experiment>/version_N`, what they record, and which of them can be resumed."""

import csv
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from cifar_lightning.files import write_whole
from cifar_onnx import InputError
from cifar_onnx.folders import expanded

BEST, LAST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"  # in a run's folder


class Run:
    """The folder of one run of `fit`, held by this process until it ends, however it ends.

    Args:
        folder: an existing folder.

    Raises:
        Timeout: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / ".lock")
        self._lock.acquire(timeout=0)

    @property
    def last(self) -> Path:
        """The last checkpoint that was kept to go on from."""
        return self.folder / LAST

    def metrics(self, steps: int, validated: bool, ended: dict[str, str] | None = None) -> list[dict[str, str]]:
        """The whole rows of metrics.csv that belong to the first `steps` steps.

        Args:
            steps: of the checkpoint that the run goes on from.
            validated: whether the validation after the last of these steps has ended; otherwise it runs again.
            ended: the row of the epoch that has ended there. It is written after the checkpoint, and may be missing.
        """
        path, rows = self.folder / "metrics.csv", list[dict[str, str]]()
        if path.exists():
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
        kept = [
            row
            for row in rows
            if (step := row.get("step", "")).isdigit()
            and int(step) < steps
            and (validated or int(step) < steps - 1 or not any(row[key] for key in row if "/" in key))
        ]
        if ended and not any(ended.items() <= row.items() for row in kept):
            kept.append(ended)
        return kept

    def release(self, discard: bool = False) -> None:
        """Let others go on with it; or discard it, if it has not come to its first checkpoint."""
        with suppress(PermissionError):  # on Windows, where what is open stays, and filelock removes it
            (self.folder / ".lock").unlink(missing_ok=True)
        self._lock.release()
        if not discard or any(self.folder.glob("checkpoints/*.ckpt")):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for parent in self.folder.parents[:2]:
            with suppress(OSError):  # it holds other runs
                parent.rmdir()


def root(default_root_dir: str | None) -> Path:
    """Where the runs are, with the trainer's setting for that.

    Raises:
        InputError: it begins with the home of nobody.
    """
    return expanded(str(default_root_dir or "."), "trainer.default_root_dir") / "runs"


def folder_of(ckpt_path: str) -> Path:
    """The folder of the run that a checkpoint belongs to, or the one it lies in."""
    folder = Path(ckpt_path).parent
    return folder.parent if folder.name == "checkpoints" else folder


def check_name(experiment: object) -> None:
    """Refuse a name that is no name of a folder under runs/."""
    if (
        not isinstance(experiment, str)
        or not re.fullmatch(r"[\w.+=,-][\w.+=, -]*", experiment)
        or set(experiment) == {"."}
    ):
        raise InputError(f"experiment {experiment!r} cannot name a folder: use letters, digits, '-', '_' and '.'")


def start(root: Path, experiment: str) -> Run:
    """A new folder, after the newest.

    Raises:
        InputError: nothing can be written there.
    """
    parent = root / experiment
    try:
        parent.mkdir(parents=True, exist_ok=True)
        before = folders(parent)
        version = number(before[-1]) + 1 if before else 0
        while True:
            try:
                new = parent / f"version_{version}"
                new.mkdir()
                return Run(new)
            except FileExistsError:  # another process was faster
                version += 1
    except OSError as error:
        where = error.filename or parent
        raise InputError(
            f"{where}: nothing can be written there ({error.strerror}): runs are kept under {root}; "
            "name another place with --trainer.default_root_dir"
        ) from error


def unfinished(root: Path, experiment: str, rank: int = 0) -> Path | None:
    """The newest folder whose run has a checkpoint, has not come to its end, and is not going on.

    Args:
        root: the folder `runs`.
        experiment: name of the experiment.
        rank: of this process among those of one run; the first holds the folder for all.
    """
    for run in reversed(folders(root / experiment)):
        if facts(run).get("finished") or not (run / LAST).exists():
            continue
        if rank == 0 and held(run):
            continue
        return run
    return None


def newest_if_finished(parent: Path) -> Path | None:
    """The newest run in the folder of an experiment, if it has come to its end; but for those without a checkpoint."""
    for run in reversed(folders(parent)):
        if not facts(run).get("finished"):
            return None
        if (run / LAST).exists():
            return run
    return None


def held(run: Path, lock: str = ".lock") -> bool:
    """Whether another process holds a run's folder, or a file in it, or this one cannot."""
    try:
        with FileLock(run / lock, timeout=0):
            return False
    except OSError:  # filelock's Timeout is one
        return True


def folders(parent: Path) -> list[Path]:
    """The folders of the runs in that of an experiment, the newest last."""
    names = os.listdir(parent) if parent.is_dir() else []
    return sorted((parent / name for name in names if is_run(name)), key=number)


def is_run(name: str) -> bool:
    """Whether a folder of this name is that of a run."""
    return re.fullmatch(r"version_\d+", name) is not None


def number(run: Path) -> int:
    """The number of a run, from its folder."""
    return int(run.name.removeprefix("version_"))


def facts(run: Path) -> dict[str, Any]:
    """What run.json in a run's folder says; nothing where it cannot be read."""
    try:
        found: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def learnt_others(ckpt_path: str, digest: str) -> bool:
    """Whether the run of a checkpoint notes that it has learnt from other images than those of this digest."""
    return bool(facts(folder_of(ckpt_path)).get("images", digest) != digest)


def record(run: Path, **more: Any) -> None:
    """Add facts to run.json in a run's folder.

    Raises:
        InputError: it cannot be written.
    """
    text = json.dumps({**facts(run), **more}, indent=2) + "\n"
    write_whole(run / "run.json", text.encode())
