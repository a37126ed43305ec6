"""A sandbox for untrusted model files: a process with limits, which may die of what passes the guard."""

import hashlib
import os
import subprocess
import sys

import numpy as np

from cifar_onnx.errors import ContractError, one_line

MEMORY = 2 * 2**30  # bytes of address space that the trial may take, besides copies of the file
SECONDS = 20  # of CPU; and, three times as many, of waiting
# Where its parent finds packages, it looks last: a folder of the user's hides nothing of Python's own.
_TRIAL = "import sys; sys.path += sys.argv[1:]; from cifar_onnx.probe import trial; trial()"


def run(data: bytes, name: str) -> None:
    """Load a model and run it on a few pictures, black, white and noise, in another process.

    Args:
        data: the file's bytes.
        name: what to call it.

    Raises:
        ContractError: the trial took too much memory or time, died, or failed; or there is no Python to run it.
    """
    nowhere = f"{name}: refused: no Python was found to try it in (sys.executable is {sys.executable!r})"
    if getattr(sys, "frozen", False):  # sys.executable is the app, which would start itself again
        raise ContractError(nowhere)
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-c", _TRIAL, *filter(None, map(str, sys.path))],
            input=data,
            capture_output=True,
            timeout=3 * SECONDS,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread of numpy's takes 40 MB of what is allowed
        )
    except subprocess.TimeoutExpired:
        raise ContractError(f"{name}: refused: its trial has not ended after {3 * SECONDS} s") from None
    except (OSError, TypeError):  # the latter of None
        raise ContractError(nowhere) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = f"was killed (signal {-done.returncode})" if done.returncode < 0 else lines[-1] if lines else "failed"
        raise ContractError(
            f"{name}: refused: its trial with {_memory(data) / 2**30:.3g} GB of memory and {SECONDS} s of CPU {why}"
        )
    if _token(data) not in done.stdout:  # what ran was no Python, however well it ended
        raise ContractError(nowhere)


def trial() -> None:
    """What the other process does with the file that it reads from standard input."""
    try:
        data = sys.stdin.buffer.read()
        _limit(_memory(data))
        _try(data)
        sys.stdout.buffer.write(_token(data))
    except BaseException as error:  # whatever the file leads to
        sys.exit(f"failed: {type(error).__name__}: {one_line(error)}")


def _token(data: bytes) -> bytes:
    """What a trial that has come to its end prints."""
    return hashlib.sha256(data).hexdigest().encode()


def _memory(data: bytes) -> int:
    return MEMORY + 5 * len(data)  # two sessions, and more of a file that is optimised


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # on Windows only the time is limited
        return
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: SECONDS, resource.RLIMIT_CORE: 0}
    if sys.platform == "darwin":  # whose kernel refuses it: https://github.com/python/cpython/issues/78783
        del limits[resource.RLIMIT_AS]
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]  # of the whole session's, which may be lower and cannot be raised
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _try(data: bytes) -> None:
    from cifar_onnx.classifier import Classifier  # which itself imports this

    classifier = Classifier(data, threads=1)
    size = classifier.contract.size
    square, tall = (1, size, size, 3), (1, 2 * size + 1, size, 3)
    noise = [np.random.default_rng(0).integers(0, 256, shape, np.uint8) for shape in (square, tall)]
    for picture in (np.zeros(square, np.uint8), np.full(square, 255, np.uint8), *noise):
        classifier.run(picture)
