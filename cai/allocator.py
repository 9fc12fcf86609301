"""How memory is taken and given back, for long computations on the processor."""

from __future__ import annotations

import ctypes


def keep_freed_memory() -> bool:
    """Have glibc keep large freed blocks instead of giving each back to the kernel; whether it could be done.

    Else every large tensor of a prefill or a training step is made of new pages, which the kernel clears one by one: on
    a virtual machine that took up to four times as long as the arithmetic on it (see `benchmarks/cpu_arithmetic.py`).
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another libc
        return False
    return bool(mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, (1 << 31) - 1))
