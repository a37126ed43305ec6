"""Files that are written whole or not at all."""

import os
import shutil
import time
from pathlib import Path

from cifar_onnx import InputError
from cifar_onnx.folders import try_writing


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written.

    Raises:
        InputError: naming it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try_writing(folder)
    except OSError as error:
        raise InputError(f"{folder}: nothing can be written there ({error.strerror})") from error


def target(output: str | None, default: Path) -> Path:
    """The file that was asked for, in the folder where it is one, or by default another.

    Raises:
        InputError: it has the name of a checkpoint, which would be lost.
    """
    if output is None:
        return default
    if output.endswith(".ckpt"):
        raise InputError(f"{output} ends in .ckpt, like a checkpoint: name another file, such as {default.name}")
    return Path(output, default.name) if output.endswith(("/", os.sep)) or Path(output).is_dir() else Path(output)


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Put a file in the place of `path`; whatever happens, the old or the new one is there, whole.

    Raises:
        InputError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.part")  # replaces what a process left that was killed
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with new.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            put(new, path)
        finally:
            new.unlink(missing_ok=True)
        if os.name == "posix":  # elsewhere a folder cannot be opened, and a rename is durable by itself
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        place = next(folder for folder in path.parents if folder.exists())
        free = shutil.disk_usage(place).free / 1e6
        size = sum(memoryview(part).nbytes for part in parts) / 1e6
        raise InputError(
            f"{path} cannot be saved ({error.strerror}; it takes {size:,.1f} MB, {free:,.1f} MB are free): "
            "what was saved before is unchanged"
        ) from error


def put(new: Path, path: Path) -> None:
    """Rename a file to `path`; on Windows nothing is replaced while somebody reads it, which will not take long."""
    for seconds in (0.1, 0.3, 1.0, 3.0):
        try:
            new.replace(path)
            return
        except PermissionError:
            time.sleep(seconds)
    new.replace(path)
