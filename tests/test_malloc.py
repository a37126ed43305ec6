"""Memory that stays with the process."""

import platform
import subprocess
import sys

import pytest

from cifar_lightning import malloc
from tests.conftest import Run

PROGRAM = """
import sys
from cifar_lightning import malloc

if sys.argv[1] == "keep":
    malloc.keep()
block, after = b"x" * 200_000_000, b"x" * 2_000_000
del block
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmRSS")))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_a_step_gives_back_stays_for_the_next_one() -> None:
    kilobytes = {
        way: int(
            subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True).stdout
        )
        for way in ("keep", "leave")
    }
    assert kilobytes["keep"] > 200_000
    assert kilobytes["leave"] < 100_000


def test_commands_keep_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(malloc, "keep", lambda: kept.append(True))
    assert run("test").code == 2
    assert kept == [True]
