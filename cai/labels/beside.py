"""People beside the AI judge: how often each agrees with a person, and so what the judge could reach at most.

For every vote of a person on an item that others labelled too, the ceiling is the share of the *other* people who say
the same; the judge's figure is whether its verdict does. Ties count half against a side. Paired by vote, clustered by
prompt: a judge that is under the people's ceiling reads a principle differently, one that is over it reads it as most
people do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.evals import stats
from cai.labels.items import Item, asked
from cai.records import HumanLabel

EVEN = 1e-9


def side(p: float) -> float:
    """1, 0 or 0.5: the verdict that a soft label gives."""
    return 1.0 if p > 0.5 + EVEN else 0.0 if p < 0.5 - EVEN else 0.5


def same(one: float, other: float) -> float:
    """1 where two verdicts are the same, 0 where they are opposite, 0.5 where one of them is a tie."""
    return 1 - abs(one - other)


def beside(
    labels: Sequence[HumanLabel],
    judged: Mapping[tuple[str, str], float],
    items: Mapping[str, Item],
    principles: Mapping[tuple[str, str], tuple[str, ...]],
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row over all, then one an axis and a principle, with the largest shortfall of the judge first.

    Args:
        labels: effective ones.
        judged: the judge's probability of a, by comparison and axis.
        principles: what the judge was asked from, by comparison and axis: see `items.principles_of`.

    Returns:
        `n` votes, `judge` and `people` (agreement with a vote, each with `ci`), `difference` (judge less people).
    """
    by_item: dict[tuple[str, str], list[HumanLabel]] = {}
    for label in labels:
        if label.y is not None:
            by_item.setdefault((label.comparison_id, label.axis), []).append(label)
    turns: dict[str, list[tuple[float, float, str]]] = {}
    for key, said in by_item.items():
        p = judged.get(key, judged.get((key[0], "")))
        item = items.get(key[0])
        if p is None or item is None or len(said) < 2:
            continue
        for label in said:
            assert label.y is not None
            others = [other.y for other in said if other is not label and other.y is not None]
            people = sum(same(label.y, other) for other in others) / len(others)
            turn = (same(side(p), label.y), people, item.prompt_id)
            names = [f"axis {key[1]}"] if key[1] else []
            for name in ("all", *names, *(f"principle {each}" for each in asked(principles, *key))):
                turns.setdefault(name, []).append(turn)
    rows = []
    for name, found in turns.items():
        its, theirs = [t[0] for t in found], [t[1] for t in found]
        prompts = [t[2] for t in found]
        gap = stats.paired_difference(its, theirs, prompts, seed=seed)
        rows.append(
            {
                "over": name,
                "n": len(found),
                "prompts": len(set(prompts)),
                "judge": _share(its, prompts, seed),
                "people": _share(theirs, prompts, seed),
                "difference": {"mean": round(gap.mean, 4), "ci": [round(x, 4) for x in gap.interval.row()]},
            }
        )
    return sorted(rows, key=lambda row: (row["over"] != "all", row["difference"]["mean"]))


def _share(values: Sequence[float], prompts: Sequence[str], seed: int) -> dict[str, Any]:
    interval = stats.share_interval(values, prompts, seed=seed)
    return {"mean": round(sum(values) / len(values), 4), "ci": [round(end, 4) for end in interval.row()]}
