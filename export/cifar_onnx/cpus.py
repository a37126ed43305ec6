"""How many CPUs there are for this process."""

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")  # where a container sees its limits


def usable_cpus() -> int:
    """How many CPUs this process may use at a time: those that it may run on, or the limit of its container.

    More threads than that limit (`docker run --cpus`, Kubernetes) use it up early in each period, and then all wait.
    """
    own = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.ceil(min(own, _limit())))


def _limit() -> float:
    """CPUs that control groups of version 2 or 1 allow, infinite where they state no limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # there are none, or "max"
            quota, period = map(int, " ".join((_CGROUP / name).read_text() for name in names).split())
            return quota / period if quota > 0 else math.inf
    return math.inf
