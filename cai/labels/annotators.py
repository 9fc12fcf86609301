"""Annotators who do not seem to read, and what gold items say of each: pointed out, never removed.

At random, by position or by length; and how often a person is right where the right verdict is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from cai.evals import stats
from cai.labels.aggregate import SHRINK, agreement_rates
from cai.labels.items import Item
from cai.labels.table import SAID, VoteTable
from cai.records import HumanLabel

LEAST = 10
"""Votes below which nothing is said of a person."""

ERROR = 0.05


def at_random(table: VoteTable) -> dict[str, str]:
    """Those who agree with others clearly less than the crowd does, and not clearly more than chance would.

    - Less than the crowd: one-sided, by the mean of a person's agreements against the crowd's mean and spread. Over all
      people together the false discovery rate is held at `ERROR` (Benjamini & Hochberg 1995): of those named, at most
      that share is expected to read as the crowd does, and where everybody does, the probability that anybody at all is
      named is at most that.
    - Not more than chance: one-sided at `ERROR` for the person, and nearer to chance than to the crowd. Chance is a
      person who draws from the pool's own labels.
    """
    counts = table.counts()
    total = counts.sum(axis=1)
    several = total[table.task] > 1
    share = (counts[table.task, table.label] - 1) / np.maximum(1, total[table.task] - 1)
    pool = np.bincount(table.label, minlength=len(table.labels)) / len(table)
    chance = float((pool**2).sum())
    if not several.any() or share[several].mean() <= chance:
        return {}
    overall, spread = float(share[several].mean()), float(share[several].std())
    normal = NormalDist()
    seen: list[tuple[float, float, int, str]] = []
    for worker in np.unique(table.worker).tolist():
        mine = several & (table.worker == worker)
        n = int(mine.sum())
        if n >= LEAST and spread > 0:
            mean = float(share[mine].mean())
            seen.append((normal.cdf((mean - overall) / spread * n**0.5), mean, n, table.workers[worker]))
    seen.sort()
    below = max((rank for rank, row in enumerate(seen, start=1) if row[0] <= ERROR * rank / len(seen)), default=0)
    found = {}
    for _, mean, n, name in seen[:below]:
        above_chance = normal.cdf((chance - mean) / spread * n**0.5) <= ERROR
        if not above_chance and mean < (chance + overall) / 2:
            found[name] = f"agrees with others in {mean:.0%} of {n}; by chance it would be {chance:.0%}"
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


# --- gold items -------------------------------------------------------------------------------------------------------


def right_of(label: HumanLabel) -> str:
    """The right verdict of an item that was asked to check the person; "" where it was not, or none is known."""
    return str(label.extra.get("gold", "")) if label.gold else ""


def ordinary(labels: Iterable[HumanLabel]) -> list[HumanLabel]:
    """The labels that count as votes: what was asked to check somebody says nothing new of the answers."""
    return [label for label in labels if not right_of(label)]


def on_gold(labels: Iterable[HumanLabel], prompt: Mapping[str, str], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Of each person how many gold verdicts they gave, and the share that is right, with an interval over prompts.

    An abstention is no verdict. A tie, where one answer is right, is wrong.

    Args:
        labels: effective ones.
        prompt: of each comparison.
    """
    said: dict[str, list[tuple[float, str]]] = {}
    for label in labels:
        right = right_of(label)
        if right and label.verdict in SAID:
            turn = float(SAID[label.verdict] == right), prompt.get(label.comparison_id, label.comparison_id)
            said.setdefault(label.annotator, []).append(turn)
    found = {}
    for name, turns in sorted(said.items()):
        values, prompts = [value for value, _ in turns], [each for _, each in turns]
        interval = stats.share_interval(values, prompts, seed=seed)
        ci = [round(end, 4) for end in interval.row()]
        found[name] = {"n": len(turns), "right": {"value": round(sum(values) / len(values), 4), "ci": ci}}
    return found


def gold_rates(labels: Iterable[HumanLabel]) -> dict[str, float]:
    """How often each person who was checked is right on gold items, shrunk to all of them together."""
    said: dict[str, list[float]] = {}
    for label in labels:
        right = right_of(label)
        if right and label.verdict in SAID:
            said.setdefault(label.annotator, []).append(float(SAID[label.verdict] == right))
    every = [value for mine in said.values() for value in mine]
    pool = sum(every) / len(every) if every else 0.0
    return {name: (sum(mine) + SHRINK * pool) / (len(mine) + SHRINK) for name, mine in said.items()}


def reliability(table: VoteTable, gold: Mapping[str, float] | None = None) -> dict[str, float]:
    """How far each person can be relied on: by gold items where they were checked (`gold_rates`), else by agreement.

    Agreement is with the others, shrunk to the pool; see `aggregate.agreement_rates`.
    """
    return dict(zip(table.workers, agreement_rates(table).tolist(), strict=True)) | {
        name: rate for name, rate in (gold or {}).items() if name in table.workers
    }
