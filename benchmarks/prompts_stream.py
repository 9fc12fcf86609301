"""Claim: `cai prompts import` of gzipped JSON Lines stays under 300 MB of memory at any size met in practice.

Two files of synthetic prompts, one eight times the other, are imported each in a process of its own; the peak RSS of
each is what the kernel says. What grows is the set of ids, by about 20 bytes a prompt, so it holds up to some 12
million prompts (7 GB of these); near-duplicates are not part of it (they cost memory, see `cai.prompts.near`).

    python -m benchmarks.prompts_stream [--mb 2048] [--folder DIR]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import report

THRESHOLD_MB = 300
IMPORT = "from cai.cli.prompts import app; app()"


def write_prompts(path: Path, size: int, seed: int = 0) -> int:
    """Write `size` bytes of JSONL.gz and return the number of its rows, of which no two are alike."""
    random_ = random.Random(seed)
    words = ["".join(random_.choices("abcdefghijklmnopqrstuvwxyz", k=random_.randint(2, 9))) for _ in range(20_000)]
    sentences = [" ".join(random_.choices(words, k=15)) for _ in range(20_000)]
    rows = 0
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1) as file:
        while raw.tell() < size:
            batch = []
            for _ in range(1000):
                text = ". ".join([f"Request {rows}", *random_.choices(sentences, k=random_.randint(2, 16))])
                batch.append(json.dumps({"prompt": text}))
                rows += 1
            file.write(("\n".join(batch) + "\n").encode())
    return rows


def measure(source: Path, out: Path) -> dict[str, Any]:
    """Import `source` in a process of its own; its peak RSS and speed."""
    command = [sys.executable, "-c", IMPORT, "import", str(source), "--out", str(out), "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the import failed with code {process.returncode}")
    compressed, written = source.stat().st_size / 1e6, out.stat().st_size / 1e6
    return {
        "rows": json.loads(answer)["written"],
        "compressed_mb": round(compressed, 1),
        "written_mb": round(written, 1),
        "seconds": round(seconds, 1),
        "compressed_mb_per_second": round(compressed / seconds, 1),
        "written_mb_per_second": round(written / seconds, 1),
        "peak_rss_mb": round(usage.ru_maxrss / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=200, help="size of the larger file, compressed")
    parser.add_argument("--folder", type=Path, help="where the files are made for the time being (default: /tmp)")
    args = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for size in (args.mb / 8, args.mb):
            source, out = Path(folder, "prompts.jsonl.gz"), Path(folder, "out.jsonl")
            rows = write_prompts(source, int(size * 1e6))
            runs.append(measure(source, out))
            print(runs[-1], file=sys.stderr)
            if runs[-1]["rows"] != rows:
                raise SystemExit(f"{rows} rows went in, {runs[-1]['rows']} came out")
            out.unlink()
    small, large = runs
    grown = (large["peak_rss_mb"] - small["peak_rss_mb"]) * (1 << 20) / (large["rows"] - small["rows"])
    report(
        claim="prompts_stream",
        value=large["peak_rss_mb"],
        threshold=THRESHOLD_MB,
        holds=large["peak_rss_mb"] < THRESHOLD_MB,
        unit="MB peak RSS of an import with exact de-duplication (less than)",
        details={"small": small, "large": large, "bytes_a_row_between_them": round(grown, 1)},
    )


if __name__ == "__main__":
    main()
