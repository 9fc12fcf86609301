"""What several judges' soft labels of one comparison come to, and how far they disagree. Pure functions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal, get_args

from cai.errors import InputError

Rule = Literal["mean", "log_odds", "median", "majority"]
RULES: tuple[str, ...] = get_args(Rule)

SUREST = 1e-6
"""How near to 0 or 1 a label may be before its log-odds are taken: no single judge can then settle a panel alone."""


def combine(probabilities: Sequence[float], rule: str) -> float:
    """One soft label from those of several judges.

    Every rule is symmetric: the labels `1 - p` give `1 -` the result, and the order of the judges plays no part.

    Args:
        probabilities: of the same answer, one a judge, a tie counted half; those without a verdict left out.
        rule: `mean`; `log_odds`, the mean of the log-odds, where a sure judge counts more; `median`, which one odd
            judge cannot move far; `majority`, the share of the judges on the answer's side, 0.5 counted half.

    Raises:
        InputError: no probabilities, one outside [0, 1], or an unknown rule.
    """
    found = _checked(probabilities)
    if rule == "mean":
        return math.fsum(found) / len(found)
    if rule == "log_odds":
        held = [min(max(p, SUREST), 1 - SUREST) for p in found]
        odds = math.fsum(math.log(p) - math.log1p(-p) for p in held) / len(held)
        return 1 / (1 + math.exp(-odds))
    if rule == "median":
        return statistics.median(found)
    if rule == "majority":
        return math.fsum(1.0 if p > 0.5 else 0.5 if p == 0.5 else 0.0 for p in found) / len(found)
    raise InputError(f"no panel rule {rule!r}", mend=f"one of: {', '.join(RULES)}")


def disagreement(probabilities: Sequence[float]) -> float:
    """How far judges differ, in bits from 0 (all say the same) to 1 (half sure of one answer, half of the other).

    The Jensen-Shannon divergence of their labels: the entropy of the mean less the mean entropy (Houlsby et al. 2011,
    arXiv 1112.5745, eq. 1). Judges who are all unsure in the same way agree.

    Raises:
        InputError: as `combine`.
    """
    found = _checked(probabilities)
    between = _entropy(math.fsum(found) / len(found)) - math.fsum(map(_entropy, found)) / len(found)
    return min(1.0, max(0.0, between))


def _checked(probabilities: Sequence[float]) -> list[float]:
    if not probabilities:
        raise InputError("no probabilities to combine")
    for p in probabilities:
        if not 0 <= p <= 1:
            raise InputError(f"{p} is not a probability")
    return list(probabilities)


def _entropy(p: float) -> float:
    """Of a yes or no with probability `p`, in bits."""
    return -math.fsum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
