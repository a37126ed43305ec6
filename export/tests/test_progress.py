import io
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from functools import partial

import pytest

pytest.importorskip("rich")
from rich.console import Console

from cifar_onnx import progress


def test_without_a_terminal_there_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(3), "reading [/b] [old]", 3, every=0)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["reading [/b] [old] (3)", *(f"reading [/b] [old]: {number} of 3" for number in range(3))]


def test_of_short_work_there_is_one_line_that_needs_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(4000), "calibrating", 4000)) == [*range(4000)]
    assert capsys.readouterr().err == "calibrating (4,000)\n"


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "Console", partial(Console, force_terminal=True))
    assert list(progress.track(range(3), "reading [/b]", 3)) == [0, 1, 2]
    err = capsys.readouterr().err
    assert "reading [/b]" in err
    assert "100%" in err


def test_it_is_drawn_while_a_step_redirects_what_it_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps() -> Iterator[int]:
        yield 0
        with redirect_stderr(io.StringIO()):
            time.sleep(0.4)  # in which a bar is drawn four times
        yield 1

    monkeypatch.setattr(progress, "Console", partial(Console, force_terminal=True))
    assert list(progress.track(steps(), "working", 2)) == [0, 1]
    assert " 50%" in capsys.readouterr().err
