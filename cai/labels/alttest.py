"""Whether the AI judge may stand in for an annotator: the alternative annotator test (Calderon et al. 2025,
2501.10970).

Each annotator is left out in turn. On the items that they and others labelled, the judge's agreement with the others is
compared with theirs: W_f where the judge's is at least as high, W_h the other way round, so both are 1 where they are
equal. The annotator's advantage is to be less than epsilon, the price of a person's time: H0: mean(W_h - W_f) >=
epsilon, by a one-sided t-test, corrected over annotators by Benjamini and Yekutieli. The judge passes if it wins
against at least half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

EPSILON = 0.15
"""What the paper suggests for skilled annotators: 0.2 for experts, 0.1 for crowd workers."""

LEAST = 30
"""Items an annotator needs for the test to be said of them."""


def alt_test(
    votes: Mapping[str, Mapping[str, float]],
    judge: Mapping[str, float],
    *,
    epsilon: float = EPSILON,
    level: float = 0.05,
) -> dict[str, Any]:
    """The test.

    Args:
        votes: by item, each annotator's verdict: 1, 0.5 or 0.
        judge: by item, the judge's verdict.

    Returns:
        `passes` (None where nobody has enough items), `winning_rate`, `advantage` (mean probability that the judge is
        at least as good), a row an annotator, and the sentence `said`.
    """
    from scipy.stats import ttest_1samp

    gaps: dict[str, list[float]] = {}
    wins: dict[str, list[float]] = {}
    for item, said in votes.items():
        if item not in judge:
            continue
        for who, mine in said.items():
            others = [value for name, value in said.items() if name != who]
            if not others:
                continue
            theirs = sum(1 - abs(mine - other) for other in others) / len(others)
            its = sum(1 - abs(judge[item] - other) for other in others) / len(others)
            gaps.setdefault(who, []).append(float(theirs >= its) - float(its >= theirs))
            wins.setdefault(who, []).append(float(its >= theirs))
    rows: list[dict[str, Any]] = []
    for who in sorted(gaps):
        if len(gaps[who]) < LEAST:
            continue
        gap = np.array(gaps[who])
        constant = np.ptp(gap) == 0
        p = float(gap[0] >= epsilon) if constant else float(ttest_1samp(gap, epsilon, alternative="less").pvalue)
        rows.append(
            {"annotator": who, "items": len(gap), "advantage": round(float(np.mean(wins[who])), 4), "p_value": p}
        )
    if not rows:
        return {
            "passes": None,
            "winning_rate": None,
            "advantage": None,
            "annotators": [],
            "epsilon": epsilon,
            "said": f"cannot be said: nobody has {LEAST} items that others labelled too",
        }
    rejected = _benjamini_yekutieli([row["p_value"] for row in rows], level)
    for row, wins_against in zip(rows, rejected, strict=True):
        row["judge_wins"] = wins_against
        row["p_value"] = round(row["p_value"], 6)
    rate = sum(rejected) / len(rows)
    advantage = sum(row["advantage"] for row in rows) / len(rows)
    word = "may" if rate >= 0.5 else "may not"
    return {
        "passes": rate >= 0.5,
        "winning_rate": round(rate, 4),
        "advantage": round(advantage, 4),
        "annotators": rows,
        "epsilon": epsilon,
        "said": f"the judge {word} stand in for an annotator (wins against {sum(rejected)} of {len(rows)}, "
        f"epsilon {epsilon:g})",
    }


def _benjamini_yekutieli(p: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses are rejected, the false discovery rate held at `level` under any dependence (2001)."""
    m = len(p)
    harmonic = sum(1 / k for k in range(1, m + 1))
    order = np.argsort(p)
    passed = [k for k, index in enumerate(order, start=1) if p[index] <= k * level / (m * harmonic)]
    cut = max(passed, default=0)
    return [int(np.where(order == index)[0][0]) < cut for index in range(m)]
