"""How much memory there is for images."""

import os
from pathlib import Path

import torch

_GROUP = Path("/sys/fs/cgroup")  # of a container that may have less than its machine


def free(device: torch.device, processes: int = 1) -> int:
    """Bytes that are free on this machine for each of several processes, and on a GPU that images go to.

    Where the system does not tell (Linux does), it is what the machine has.
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))]
    except (OSError, StopIteration):
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limit, used, parts = (_GROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        # What is kept of files is given up when memory is asked for: it counts as free, as in MemAvailable.
        kept = dict(line.split() for line in parts.read_text().splitlines())
        found.append(int(most) - int(used.read_text()) + int(kept["active_file"]) + int(kept["inactive_file"]))
    on_gpu = [torch.cuda.mem_get_info(device)[0]] if device.type == "cuda" else []
    return min([min(found) // processes, *on_gpu])
