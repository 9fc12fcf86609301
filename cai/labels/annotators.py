"""Annotators who do not seem to read: who answer at random, by position or by length. Pointed out, never removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cai.evals import stats
from cai.labels.aggregate import agreement_rates
from cai.labels.items import Item
from cai.labels.table import VoteTable
from cai.records import HumanLabel

LEAST = 10
"""Votes below which nothing is said of a person."""


def at_random(table: VoteTable) -> dict[str, str]:
    """Those whose agreement with others is not above what chance gives, at 95 % over all people together.

    Chance is that of a person who draws from the pool's own labels. The interval is Wilson's, its level corrected for
    the number of people (Bonferroni), and the agreement's point must also be nearer to chance than to the pool's.
    """
    counts = table.counts()
    total = counts.sum(axis=1)
    several = total[table.task] > 1
    share = (counts[table.task, table.label] - 1) / np.maximum(1, total[table.task] - 1)
    pool = np.bincount(table.label, minlength=len(table.labels)) / len(table)
    chance = float((pool**2).sum())
    overall = float(share[several].mean()) if several.any() else chance
    people = np.unique(table.worker)
    level = 1 - 0.05 / max(1, len(people))
    found = {}
    for worker in people.tolist():
        mine = several & (table.worker == worker)
        n = int(mine.sum())
        if n < LEAST or overall <= chance:
            continue
        mean = float(share[mine].mean())
        low = stats.wilson(mean, n, level=level).low
        if low <= chance and mean < (chance + overall) / 2 and stats.wilson(mean, n).high < overall:
            found[table.workers[worker]] = (
                f"agrees with others in {mean:.0%} of {n}; by chance it would be {chance:.0%}"
            )
    return found


def by_position(labels: Sequence[HumanLabel]) -> dict[str, str]:
    """Those who take the same side whatever is shown there: the first-shown answer in far more, or fewer, than half."""
    votes: dict[str, list[float]] = {}
    for label in labels:
        if label.verdict in ("a", "b") and label.shown_order in ("ab", "ba"):
            votes.setdefault(label.annotator, []).append(float((label.verdict == "a") == (label.shown_order == "ab")))
    return _one_sided(votes, "takes the answer shown first in {share:.0%} of {n}")


def by_length(labels: Sequence[HumanLabel], items: Mapping[str, Item]) -> dict[str, str]:
    """Those who take the longer answer nearly always, and clearly more often than the others do."""
    votes: dict[str, list[float]] = {}
    for label in labels:
        item = items.get(label.comparison_id)
        if item is not None and label.verdict in ("a", "b") and len(item.a.text) != len(item.b.text):
            longer = "a" if len(item.a.text) > len(item.b.text) else "b"
            votes.setdefault(label.annotator, []).append(float(label.verdict == longer))
    every = [vote for mine in votes.values() for vote in mine]
    pool = sum(every) / len(every) if every else 0.5
    return _one_sided(votes, "takes the longer answer in {share:.0%} of {n}", pool=pool)


def _one_sided(votes: Mapping[str, Sequence[float]], sentence: str, *, pool: float = 0.5) -> dict[str, str]:
    """Those whose share is beyond 0.8 (or under 0.2) and whose corrected interval leaves the pool's out."""
    level = 1 - 0.05 / max(1, len(votes))
    found = {}
    for person, mine in sorted(votes.items()):
        share, n = sum(mine) / len(mine), len(mine)
        interval = stats.wilson(share, n, level=level)
        if n >= LEAST and not interval.holds(pool) and not 0.2 <= share <= 0.8:
            found[person] = sentence.format(share=share, n=n)
    return found


def reliability(table: VoteTable) -> dict[str, float]:
    """Agreement with the others, shrunk to the pool; see `aggregate.agreement_rates`."""
    return dict(zip(table.workers, agreement_rates(table).tolist(), strict=True))
