"""A million votes over 200,000 items and 1,000 annotators: time and memory of Dawid-Skene, beside crowd-kit's.

    python -m benchmarks.aggregate_speed [--votes 1000000] [--items 200000] [--workers 1000]

Each in a process of its own; time by the wall clock from votes in a Parquet file to the distribution of each item,
memory the peak resident size of the process. crowd-kit runs as many EM steps as ours took.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import report


def make(path: Path, votes: int, items: int, workers: int) -> None:
    """Votes of workers of different skill on three labels."""
    import pandas as pd

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, items)
    skill = rng.beta(6, 2, workers)
    task, worker = rng.integers(0, items, votes), rng.integers(0, workers, votes)
    right = rng.random(votes) < skill[worker]
    label = np.where(right, truth[task], rng.integers(0, 3, votes))
    names = np.array(["a", "tie", "b"], dtype=object)
    pd.DataFrame({"task": task.astype(str), "worker": worker.astype(str), "label": names[label]}).to_parquet(path)


def ours(path: Path) -> dict[str, Any]:
    from cai.labels.aggregate import aggregate
    from cai.labels.table import read_votes

    begun = time.perf_counter()
    found = aggregate(read_votes(path), "dawid_skene")
    return {"seconds": time.perf_counter() - begun, "steps": found.steps, "tasks": len(found.p)}


def crowd_kit(path: Path, steps: int) -> dict[str, Any]:
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    begun = time.perf_counter()
    found = DawidSkene(n_iter=steps).fit_predict_proba(pd.read_parquet(path))
    return {"seconds": time.perf_counter() - begun, "steps": steps, "tasks": len(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", default="")
    parser.add_argument("--path", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    if options.part:
        found = ours(options.path) if options.part == "ours" else crowd_kit(options.path, options.steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found | {"peak_mb": round(peak, 1)}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.parquet"
        make(path, options.votes, options.items, options.workers)
        rows: dict[str, list[dict[str, Any]]] = {"ours": [], "crowd-kit": []}
        for _ in range(options.repeats):
            for name in rows:
                steps = rows["ours"][-1]["steps"] if rows["ours"] else options.steps
                command = [sys.executable, "-m", "benchmarks.aggregate_speed", "--part", name, "--path", str(path)]
                done = subprocess.run([*command, "--steps", str(steps)], stdout=subprocess.PIPE, text=True, check=True)
                rows[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(name, rows[name][-1], flush=True)
    seconds = float(np.median([row["seconds"] for row in rows["ours"]]))
    memory = max(row["peak_mb"] for row in rows["ours"])
    size = {"votes": options.votes, "items": options.items, "workers": options.workers}
    details = {"runs": rows, **size}
    report(
        claim="aggregate_million_votes_seconds",
        value=round(seconds, 2),
        threshold=10,
        holds=seconds <= 10,
        unit="seconds by the wall clock, median (at most)",
        details=details,
    )
    report(
        claim="aggregate_million_votes_memory",
        value=memory,
        threshold=1024,
        holds=memory <= 1024,
        unit="MB, peak resident size of the process (at most)",
        details=details,
    )


if __name__ == "__main__":
    main()
