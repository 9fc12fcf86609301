"""What the processor of this machine is good at."""

from __future__ import annotations

import shutil
from pathlib import Path


def resolved_dtype(dtype: str) -> str:
    """What `auto` comes to here. A processor without units for bfloat16 emulates it, several times slower than float32.

    Asks for no driver and loads nothing.
    """
    if dtype != "auto":
        return dtype
    return "bfloat16" if shutil.which("nvidia-smi") or has_bfloat16() else "float32"


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bfloat16 in units of its own (x86: AVX-512 BF16 or AMX; Arm: BF16)."""
    try:
        lines = cpuinfo.read_text("utf-8").splitlines()
    except OSError:
        return True  # no Linux: let vLLM decide as it always has
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
