"""Silence around tools that talk while they work."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without what torch and onnxruntime print, log and warn of on their way: the gate judges what has come of it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nobody = logging.NullHandler()  # where there is none, logging.info sets one up, which would keep this stderr
    logging.root.addHandler(nobody)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.root.removeHandler(nobody)
        logging.disable(before)
