"""Files that are written whole or not at all, and the note of its digest at the end of a checkpoint."""

import hashlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from cifar_onnx import InputError
from cifar_onnx.folders import try_writing

NOTE_SIZE = 72  # bytes at the end of a checkpoint, of which zip readers, and so torch.load, take no notice


def check_writable(folder: Path, option: str = "") -> None:
    """Refuse a folder in which nothing can be written.

    Args:
        folder: which need not be there.
        option: that names another one.

    Raises:
        InputError: naming it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try_writing(folder)
    except OSError as error:
        way_out = f": name another place with {option}" if option else ""
        raise InputError(f"{folder}: nothing can be written there ({error.strerror}){way_out}") from error


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


def note(data: memoryview) -> bytes:
    """What follows a checkpoint's bytes in its file: their sha256."""
    return b"sha256:%s\n" % hashlib.sha256(data).hexdigest().encode()


def noted_digest(file: BinaryIO) -> str:
    """sha256 of all that a checkpoint's file holds before its note of it, in hexadecimal; empty where there is no note.

    It leaves the file at its end.
    """
    file.seek(max(file.seek(0, os.SEEK_END) - NOTE_SIZE, 0))
    found = re.fullmatch(rb"sha256:([0-9a-f]{64})\n", file.read())
    return found[1].decode() if found else ""


def file_digest(checkpoint: str | Path) -> str:
    """`noted_digest` of a file, by which reports name the checkpoint that they judge."""
    with open(checkpoint, "rb") as file:
        return noted_digest(file)
