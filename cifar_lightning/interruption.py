"""SIGTERM, SIGINT and Windows' SIGBREAK: a run that trains finishes its step first; a second one ends it at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [signal.SIGTERM, signal.SIGINT]
if sys.platform == "win32":
    _SIGNALS.append(signal.SIGBREAK)  # the one that a parent can send to a child in a group of its own
_received: int | None = None
_waiting = False  # for the end of a training step


class Interrupted(BaseException):
    """A signal has come, and what had to be finished is finished.

    Args:
        signum: number of the signal.
    """

    def __init__(self, signum: int) -> None:
        self.exit_code = 128 + signum
        super().__init__(f"stopped by {signal.Signals(signum).name}")


def received() -> int | None:
    """The signal that has come and waits for the end of the training step."""
    return _received


def defer(waiting: bool) -> None:
    """Let signals wait for the end of a training step, which then has to ask for `received`; or no longer."""
    global _waiting
    _waiting = waiting


def _handle(signum: int, _: FrameType | None) -> None:
    global _received
    _received = signum
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    if not _waiting:
        raise Interrupted(signum)
    name = signal.Signals(signum).name
    # Not print: a handler may run in the middle of another one.
    os.write(2, f"{name}: finishing the step and saving it (again: stop at once)\n".encode())


def listen() -> None:
    """Take the signals, also where a library has taken them in the meantime."""
    if threading.current_thread() is threading.main_thread() and _received is None:
        for each in _SIGNALS:
            signal.signal(each, _handle)


@contextmanager
def handled() -> Iterator[None]:
    """Turn the first signal into `Interrupted`, as long as this context lasts."""
    global _received
    before = {each: signal.getsignal(each) for each in _SIGNALS}
    _received = None
    listen()
    try:
        yield
    finally:
        _received = None
        defer(False)
        if threading.current_thread() is threading.main_thread():
            for each, handler in before.items():
                signal.signal(each, handler)
