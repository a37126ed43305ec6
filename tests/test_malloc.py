"""Memory that stays with the process."""

import platform
import subprocess
import sys

import pytest

from cifar_lightning import malloc
from tests.conftest import Run

PROGRAM = """
import resource, sys
from cifar_lightning import malloc

if sys.argv[1] == "keep":
    malloc.keep()
for step in range(20):
    if step == 2:  # the first ones have to ask for memory
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b'x' * 50_000_000  # 12,000 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_blocks_are_not_cleared_anew_in_each_step() -> None:
    faults = {
        way: int(
            subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=True).stdout
        )
        for way in ("keep", "leave")
    }
    assert faults["keep"] < 100
    assert faults["leave"] > 100_000


def test_commands_keep_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(malloc, "keep", lambda: kept.append(True))
    assert run("test").code == 2
    assert kept == [True]
