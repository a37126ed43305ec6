"""The command that comes next, as people type it."""

from pathlib import Path

from cifar_onnx import shell


def say_next(*words: object) -> None:
    """Print a command of this package."""
    print("next:", shell.line("python", "-m", "cifar_lightning", *words))


def short(path: str | Path) -> Path:
    """A path as people type it."""
    path = Path(path)
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
