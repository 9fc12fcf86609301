"""Run the benchmarks one after another, each in a process of its own; one that fails does not stop the others.

    python -m benchmarks.run_all [NAME...]      all of them without names; exit 1 if a claim does not hold

Options are for the single scripts (`python -m benchmarks.store --rows 10000`).
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.check import Claim, read_claims, show
from benchmarks.common import RESULTS

FOLDER = Path(__file__).resolve().parent
NOT_BENCHMARKS = frozenset({"__init__", "common", "run_all", "check", "judge_model", "people_data"})


def names() -> list[str]:
    """The benchmarks: every script of this folder but those that run and check them."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_BENCHMARKS)


def run(name: str) -> tuple[list[Claim], str]:
    """Run one script; the claims whose results it wrote, and what went wrong, or ''."""
    before = _written()
    code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=FOLDER.parent, check=False).returncode
    changed = {path for path, when in _written().items() if before.get(path) != when}
    claims = [claim for claim in read_claims() if claim.path in changed]
    if code:
        return claims, f"{name} failed with code {code}"
    return claims, "" if claims else f"{name} wrote no result"


def _written() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in RESULTS.glob("*.json")}


def main(asked: list[str]) -> int:
    known = names()
    unknown = [name for name in asked if name not in known]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    claims: list[Claim] = []
    failures: list[str] = []
    for name in asked or known:
        print(f"--- {name}", flush=True)
        begun = time.monotonic()
        found, failure = run(name)
        claims += found
        failures += [failure] if failure else []
        print(f"    {time.monotonic() - begun:.0f} s{f', {failure}' if failure else ''}", flush=True)
    print()
    holds = show(claims)
    for failure in failures:
        print(failure)
    return 0 if holds and not failures else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
