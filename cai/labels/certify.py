"""Which pairs the judge may label alone at a promised agreement with people; or that nothing can be promised.

Fixed-sequence testing of thresholds (Jung et al. 2024, "Trust or Escalate", arXiv 2407.18370): from the surest pairs
down, each threshold is tested at level delta by the exact binomial upper bound on the judge's error among the pairs
above it; the first that fails ends the sequence, so no correction is needed, and the promise holds with probability 1 -
delta.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEPS = 100


@dataclass(frozen=True)
class Certificate:
    """What can be promised.

    Attributes:
        threshold: certainty, max(p, 1 - p), from which on the judge may label alone; None: cannot certify.
        n, errors: pairs people labelled at or above it, and how many the judge got wrong.
        bound: upper bound of the error at it, at level `delta`; at the surest threshold tested where nothing holds.
        coverage: share of all pairs, labelled or not, at or above it.
    """

    agreement: float
    delta: float
    threshold: float | None
    n: int
    errors: int
    bound: float
    coverage: float

    def row(self) -> dict[str, Any]:
        return {
            "agreement": self.agreement,
            "delta": self.delta,
            "threshold": None if self.threshold is None else round(self.threshold, 4),
            "n": self.n,
            "errors": self.errors,
            "error_at_most": round(self.bound, 4),
            "coverage": round(self.coverage, 4),
            "said": self.said,
        }

    @property
    def said(self) -> str:
        """For people."""
        if self.threshold is None:
            return (
                f"cannot certify {self.agreement:.0%} agreement: even among the surest {self.n} labelled pairs the "
                f"judge may err in {self.bound:.0%}"
            )
        return (
            f"from certainty {self.threshold:.2f} on the judge may label alone ({self.coverage:.0%} of all pairs): "
            f"at least {self.agreement:.0%} agreement, {1 - self.delta:.0%} sure, from {self.n} labelled pairs"
        )


def upper_bound(errors: int, n: int, delta: float) -> float:
    """Clopper and Pearson's upper bound of a share, one-sided, at level `delta`."""
    from scipy.stats import beta

    return 1.0 if n == 0 or errors >= n else float(beta.ppf(1 - delta, errors + 1, n - errors))


def certify(
    certainty: Array, right: Array, agreement: float, *, delta: float = 0.1, every: Array | None = None
) -> Certificate:
    """The lowest threshold that fixed-sequence testing allows.

    Args:
        certainty: max(p, 1 - p) of labelled pairs that are independent of one another (one a prompt) and were not
            chosen for the judge's doubt (a random slice).
        right: whether the judge says what people say, 0 or 1.
        every: certainty of all pairs, NaN where the judge has no verdict; by default the labelled ones.
    """
    every = certainty if every is None else every
    risk = 1 - agreement
    order = np.argsort(-certainty, kind="stable")
    levels = np.unique(certainty)[::-1]
    if len(levels) > STEPS:
        levels = np.unique(np.quantile(certainty, np.linspace(1, 0, STEPS), method="lower"))[::-1]
    # Too few pairs can never pass; starting below them keeps the first test from ending the sequence for want of data.
    need = next((k for k in range(1, len(order) + 1) if upper_bound(0, k, delta) <= risk), len(order) + 1)
    kept: Certificate | None = None
    for level in levels:
        above = certainty >= level
        n, errors = int(above.sum()), round(float((1 - right[above]).sum()))
        if n < min(need, len(order)):
            continue
        bound = upper_bound(errors, n, delta)
        covered = float((every >= level).mean())  # a NaN is below every threshold
        found = Certificate(agreement, delta, float(level), n, errors, bound, covered)
        if bound > risk:
            if kept is None:
                return Certificate(agreement, delta, None, n, errors, bound, 0.0)
            break
        kept = found
    return kept or Certificate(agreement, delta, None, len(order), int((1 - right).sum()), 1.0, 0.0)
