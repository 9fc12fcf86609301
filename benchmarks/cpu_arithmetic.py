"""What `dtype: auto` and kept memory are worth on this processor: the arithmetic of a prefill without any model.

    python -m benchmarks.cpu_arithmetic [--repeats 5]

- `precision_auto`: a matrix product of 1,024 tokens (1536 by 8960) in the precision that `auto` chooses here, beside
  the other of float32 and bfloat16: it must not be slower.
- `kept_memory`: an activation of 50 MB (SiLU of 4,096 by 3,072 in float32), freed memory kept beside given back to the
  kernel, each in a process of its own: it must not be slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import report
from cai.allocator import keep_freed_memory
from cai.processor import resolved_dtype


def milliseconds(work: Callable[[], Any], repeats: int) -> float:
    """Median of one call, after one that is not counted."""
    took = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - begun))
    return round(statistics.median(took[1:]), 2)


def product(dtype: str, repeats: int) -> float:
    import torch

    one, other = torch.randn(1024, 1536), torch.randn(8960, 1536)
    one, other = one.to(getattr(torch, dtype)), other.to(getattr(torch, dtype))
    return milliseconds(lambda: torch.nn.functional.linear(one, other), repeats)


def activation(repeats: int) -> float:
    import torch

    x = torch.randn(4096, 3072)
    return milliseconds(lambda: torch.nn.functional.silu(x), 4 * repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        if options.part == "kept" and not keep_freed_memory():
            raise SystemExit("another libc: nothing can be kept")
        print(json.dumps(activation(options.repeats)))
        return
    chosen = resolved_dtype("auto")
    took = {dtype: product(dtype, options.repeats) for dtype in ("float32", "bfloat16")}
    ratio = took["bfloat16" if chosen == "float32" else "float32"] / took[chosen]
    report(
        claim="precision_auto",
        value=round(ratio, 2),
        threshold=1.0,
        holds=ratio >= 1.0,
        unit="time of a matrix product in the other precision by that in the chosen one; at least",
        details={
            "chosen": chosen,
            "milliseconds": took,
            "gflops": {dtype: round(2e-6 * 1024 * 1536 * 8960 / ms, 1) for dtype, ms in took.items()},
        },
    )
    command = [sys.executable, "-m", "benchmarks.cpu_arithmetic", "--repeats", str(options.repeats), "--part"]
    parts = {
        part: float(subprocess.run([*command, part], capture_output=True, text=True, check=True).stdout)
        for part in ("given_back", "kept")
    }
    ratio = parts["given_back"] / parts["kept"]
    report(
        claim="kept_memory",
        value=round(ratio, 2),
        threshold=1.0,
        holds=ratio >= 1.0,
        unit="time of an activation of 50 MB with freed memory given back by that with it kept; at least",
        details={"milliseconds": parts},
    )


if __name__ == "__main__":
    main()
