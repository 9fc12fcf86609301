"""Claim: `cai --help` answers in at most 0.3 s, because no heavy module is loaded for it.

Each of `--runs` runs is a process of its own with the modules' bytecode on disk, as a person's second call has. Beside
it, the bare interpreter is timed in alternation: the difference is what `cai` itself costs. Which modules are loaded is
asked of a process that shows the help and then lists them; a heavy one fails the claim whatever the time.

    python -m benchmarks.cli_help [--runs 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.common import report

SECONDS = 0.3
HEAVY = frozenset(
    {
        *("torch", "vllm", "transformers", "trl", "peft", "accelerate", "datasets", "openai", "ray", "gguf"),
        *("numpy", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib"),
        *("datasketch", "pydantic", "yaml", "jsonlines"),
    }
)
HELP = "from cai.cli.main import app; app()"
LISTING = """
import sys
sys.argv = ["cai", "--help"]
from cai.cli.main import app
try:
    app()
except SystemExit as end:
    assert not end.code
print("\\n" + " ".join(sys.modules))
"""


def seconds_of(command: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one process."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment())
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the command failed with code {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


def environment() -> dict[str, str]:
    """Ours, but with bytecode written and read as a user's Python does."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def modules() -> list[str]:
    done = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "p90": round(statistics.quantiles(values, n=10, method="inclusive")[-1], 3),
        "least": round(min(values), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()
    commands = {"help": [sys.executable, "-c", HELP, "--help"], "python": [sys.executable, "-c", "pass"]}
    for command in commands.values():
        seconds_of(command)  # writes the bytecode that is not there yet
    wall: dict[str, list[float]] = {name: [] for name in commands}
    used: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.runs):
        for name, command in commands.items():
            seconds, processor = seconds_of(command)
            wall[name].append(seconds)
            used[name].append(processor)
    loaded = modules()
    heavy = sorted(HEAVY.intersection(name.partition(".")[0] for name in loaded))
    median = statistics.median(wall["help"])
    details: dict[str, Any] = {
        "runs": args.runs,
        "wall_seconds": {name: summary(values) for name, values in wall.items()},
        "processor_seconds": {name: summary(values) for name, values in used.items()},
        "times_the_bare_interpreter": round(median / statistics.median(wall["python"]), 1),
        "modules_loaded": len(loaded),
        "own_modules": sorted(name for name in loaded if name.partition(".")[0] == "cai"),
        "heavy_modules": heavy,
    }
    report(
        claim="cai_help",
        value=round(median, 3),
        threshold=SECONDS,
        holds=median <= SECONDS and not heavy,
        unit="s, median of `cai --help` (at most), no heavy module loaded",
        details=details,
    )


if __name__ == "__main__":
    main()
