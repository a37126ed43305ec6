"""glibc's allocator, told to keep a step's memory for the next one."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # glibc's names of its settings: malloc.h
_MOST = 2**31 - 1  # bytes at the end of the heap that are kept: the largest that can be said


def keep() -> None:
    """Let the tensors of a step take the memory that those of the step before gave back, in the whole process.

    Of itself glibc gives blocks of more than 32 MB, and more than 64 MB at the end of its heap, back to the system,
    which clears them when they are asked for again: a tenth to a quarter of the time of small nets on a CPU. The price
    is that a process stays as large as it has been. All threads share the main heap: further ones are limited to 64 MB
    each, too little for large blocks once mmap is off. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for setting, value in ((_TRIM_THRESHOLD, _MOST), (_MMAP_MAX, 0), (_ARENA_MAX, 1)):
            libc.mallopt(setting, value)
