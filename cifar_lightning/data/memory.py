"""How much memory there is for images."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

_GROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # of Linux; the latter says which is this process's


def free(device: torch.device, processes: int = 1) -> int:
    """Bytes that are free on this machine for each of several processes, and on a GPU that images go to."""
    found = [psutil.virtual_memory().available, *_left()]
    on_gpu = [torch.cuda.mem_get_info(device)[0]] if device.type == "cuda" else []
    return min([min(found) // processes, *on_gpu])


def _left() -> Iterator[int]:
    """Bytes left to this process's control groups (of a container, a job of SLURM), and to those that they are in.

    Version 2 has one group of each process, version 1 one for memory.
    """
    for line in _OWN.read_text().splitlines() if _OWN.exists() else []:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, limit, used, total = _GROUPS, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            top, limit, used, total = _GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        parts = Path(group).parts[1:]
        for folder in (top.joinpath(*parts[:count]) for count in range(len(parts) + 1)):
            # Within a container only its own group may be seen, at the top.
            if not (folder / limit).exists() or (most := (folder / limit).read_text().strip()) == "max":
                continue
            # What is kept of files is given up when memory is asked for: it counts as free, as psutil has it.
            kept = dict(each.split() for each in (folder / "memory.stat").read_text().splitlines())
            cached = int(kept[f"{total}active_file"]) + int(kept[f"{total}inactive_file"])
            yield int(most) - int((folder / used).read_text()) + cached
