"""Claims: a log of a million rows takes at most 500 MB of memory (`store_memory`) and reopens in 20 s (`store_reopen`).

A run resumes by reopening its two logs. One of each kind is written here with `--rows` rows of the shape and size that
a run of two rounds writes, its texts drawn from a word list: `requests` (a completion by the hash of its request) and
`journal` (a finished row with its three responses). Each phase is a process of its own, whose peak RSS is what the
kernel says:

- `append`: all rows, into a new log;
- `reopen cold`, `reopen warm`: open the log and get a thousand random rows, its pages dropped from the cache before, or
  just read. The claim is about the slower one.

    python -m benchmarks.store [--rows 1000000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import report
from cai.store import Log

MEMORY_MB, REOPEN_SECONDS = 500, 20
GETS = 1000
KINDS = {"requests": "key", "journal": "id"}


def name_of(number: int) -> str:
    """The key of a row: 24 hex digits, as `content_hash` gives."""
    return hashlib.sha256(b"%d" % number).hexdigest()[:24]


class Rows:
    """Rows of one kind, made up at a few microseconds each."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        chance = random.Random(0)
        words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5000)]
        words += ["naïve", "\u201cquoted\u201d", 'a "b"', "two\nlines"]  # what JSON has to escape and UTF-8 to widen
        self._texts = [" ".join(chance.choices(words, k=chance.randint(60, 180))) for _ in range(997)]
        self._critiques = [" ".join(chance.choices(words, k=chance.randint(30, 80))) for _ in range(499)]

    def row(self, number: int) -> dict[str, Any]:
        name, text = name_of(number), self._texts[number % 997]
        model = "smollm2-135m-instruct@0123456789ab"
        if self._kind == "requests":
            return {
                "key": name,
                "text": text,
                "finish_reason": "stop",
                "prompt_tokens": 400 + number % 300,
                "completion_tokens": 160,
                "cached_tokens": 384,
                "model": model,
            }
        responses = [self._response(name, number, step, model) for step in range(3)]
        return {"id": name, "responses": responses, "quarantined": None}

    def _response(self, name: str, number: int, step: int, model: str) -> dict[str, Any]:
        return {
            "schema": 1,
            "id": name[:23] + str(step),
            "prompt_id": name,
            "round": step,
            "text": self._texts[(number + step) % 997],
            "model": model,
            "sampling": {"seed": number, "max_tokens": 160, "temperature": 0.7, "top_p": 1.0, "top_k": 0},
            "finish_reason": "stop",
            "parent_id": name[:23] + str(step - 1) if step else None,
            "principle_ids": ["offer-safe-part"] if step else [],
            "critique": self._critiques[(number + step) % 499] if step else None,
            "critique_model": model if step else None,
            "critique_flags": [],
            "flags": [],
            "attempts": [],
            "tokens": 240,
        }


def append(path: Path, kind: str, rows: int) -> dict[str, float]:
    made = Rows(kind)
    base = rss_mb()
    with Log(path, key=KINDS[kind]) as log:
        begun = time.perf_counter()
        for number in range(rows):
            log.append(made.row(number))
        seconds = time.perf_counter() - begun
    return {
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "bytes_a_row": round(path.stat().st_size / rows),
        "rss_mb_before": base,
        "rss_mb_peak": rss_mb(),
    }


def reopen(path: Path, kind: str, rows: int, cold: bool) -> dict[str, float]:
    if cold:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    made, base = Rows(kind), rss_mb()
    begun, used = time.perf_counter(), time.process_time()
    log = Log(path, key=KINDS[kind])
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    if len(log) != rows:
        raise SystemExit(f"{rows} rows went in, {len(log)} are found")
    chance = random.Random(1)
    asked = [chance.randrange(rows) for _ in range(GETS)]
    begun = time.perf_counter()
    found = [log.get(name_of(number)) for number in asked]
    getting = time.perf_counter() - begun
    if any(row != made.row(number) for row, number in zip(found, asked, strict=True)):
        raise SystemExit("a row came back other than it was written")
    log.close()
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(used, 2),
        "microseconds_a_get": round(getting / GETS * 1e6, 1),
        "rss_mb_before": base,
        "rss_mb_peak": rss_mb(),
    }


def rss_mb() -> float:
    """The most memory that this process has had so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


def phase(name: str, path: Path, kind: str, rows: int) -> dict[str, float]:
    """One phase in a process of its own."""
    arguments = ["--phase", name, "--kind", kind, "--rows", str(rows), "--folder", str(path)]
    command = [sys.executable, "-m", "benchmarks.store", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    print(f"  {kind}, {name}: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the logs are made for the time being (5 GB; default: /tmp)")
    parser.add_argument("--phase", default="", help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=sorted(KINDS), default="requests", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.phase:
        if args.phase == "append":
            found = append(args.folder, args.kind, args.rows)
        else:
            found = reopen(args.folder, args.kind, args.rows, args.phase == "reopen cold")
        print(json.dumps(found))
        return
    details: dict[str, Any] = {"rows": args.rows, "gets": GETS}
    phases: list[dict[str, float]] = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            path = Path(folder, f"{kind}.jsonl")
            told = {name: phase(name, path, kind, args.rows) for name in ("append", "reopen cold", "reopen warm")}
        details[kind] = told
        phases += told.values()
    memory = max(each["rss_mb_peak"] for each in phases)
    seconds = max(details[kind][name]["seconds"] for kind in KINDS for name in ("reopen cold", "reopen warm"))
    report(
        claim="store_memory",
        value=memory,
        threshold=MEMORY_MB,
        holds=memory <= MEMORY_MB,
        unit="MB peak RSS, the most of all phases (at most)",
        details=details,
    )
    report(
        claim="store_reopen",
        value=seconds,
        threshold=REOPEN_SECONDS,
        holds=seconds <= REOPEN_SECONDS,
        unit="s to reopen a log, the slowest (at most)",
        details=details,
    )


if __name__ == "__main__":
    main()
