"""List all results and the claims that do not hold; measures nothing.

    python -m benchmarks.check

It exits with 1 if a claim does not hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import COMMITTED


@dataclass(frozen=True)
class Claim:
    """What one result says."""

    path: Path
    name: str
    value: float
    threshold: float
    holds: bool
    unit: str
    date: str


def read_claims() -> list[Claim]:
    """Every result, by claim; a file that is not one ends the program."""
    claims = []
    for path in sorted((*COMMITTED.glob("*.json"), *COMMITTED.glob("gpu/*.json"))):
        try:
            row = json.loads(path.read_text("utf-8"))
            claims.append(
                Claim(
                    path=path,
                    name=str(row["claim"]) + (", GPU" if path.parent.name == "gpu" else ""),
                    value=float(row["value"]),
                    threshold=float(row["threshold"]),
                    holds=row["holds"] is True,
                    unit=str(row["unit"]),
                    date=str(row["date"]),
                )
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"benchmarks/results/{path.name} is not a result: {error!r}") from error
    return claims


def show(claims: Sequence[Claim]) -> bool:
    """Print a table of the claims, and those that do not hold once more; whether all hold."""
    if not claims:
        print("no results")
        return True
    width = max(len(claim.name) for claim in claims)
    print(f"{'claim':{width}}  {'value':>10}  {'threshold':>10}  holds  date        unit")
    for claim in claims:
        holds = "yes" if claim.holds else "NO"
        figures = f"{claim.value:10g}  {claim.threshold:10g}"
        print(f"{claim.name:{width}}  {figures}  {holds:5}  {claim.date[:10]}  {claim.unit}")
    failing = [claim.name for claim in claims if not claim.holds]
    print(f"\nclaims that do not hold: {', '.join(failing)}" if failing else f"\nall {len(claims)} claims hold")
    return not failing


if __name__ == "__main__":
    sys.exit(0 if show(read_claims()) else 1)
