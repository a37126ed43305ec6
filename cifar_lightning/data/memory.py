"""How much memory there is for images."""

from pathlib import Path

import psutil
import torch

_GROUP = Path("/sys/fs/cgroup")  # of a container that may have less than its machine


def free(device: torch.device, processes: int = 1) -> int:
    """Bytes that are free on this machine for each of several processes, and on a GPU that images go to."""
    found = [psutil.virtual_memory().available]
    limit, used, parts = (_GROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        # What is kept of files is given up when memory is asked for: it counts as free, as psutil has it.
        kept = dict(line.split() for line in parts.read_text().splitlines())
        found.append(int(most) - int(used.read_text()) + int(kept["active_file"]) + int(kept["inactive_file"]))
    on_gpu = [torch.cuda.mem_get_info(device)[0]] if device.type == "cuda" else []
    return min([min(found) // processes, *on_gpu])
