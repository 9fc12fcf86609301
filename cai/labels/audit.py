"""Which of a run's pairs were drawn at random to be labelled, and so which labels say something of all its pairs.

`cai label route` asks about pairs where the judge is in doubt; of the judge's accuracy elsewhere, and of win rates,
their labels say nothing. So each draw at random is recorded in the run, also of a pair that somebody had labelled
already (it is not asked again), and only labels of drawn pairs are taken for a random sample.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

AUDIT, UNSURE = "audit", "unsure"


@dataclass(frozen=True)
class Sample:
    """Labelled pairs that stand for all.

    Attributes:
        ids: comparisons.
        how: `all` (every pair has a label), `drawn` (recorded draws), `assumed` (nothing was ever routed, so the
            labelled pairs are taken for a random sample) or `asked` (the user said that they are).
        drawn: pairs drawn at random so far; `waiting` those of them without a label.
    """

    ids: frozenset[str]
    how: str
    drawn: int = 0
    waiting: int = 0

    def row(self) -> dict[str, Any]:
        return {"pairs": len(self.ids), "how": self.how, "drawn": self.drawn, "waiting": self.waiting}

    @property
    def warning(self) -> str:
        """What a reader of figures made from it should know; "" where nothing."""
        if self.how == "assumed" and self.ids:
            return (
                f"nothing records how the {len(self.ids)} labelled pairs were chosen; the figures hold only if "
                "that was at random (`cai label route --out` draws some, and records which)"
            )
        if self.how == "drawn" and not self.drawn:
            return "no pair was ever drawn at random (--audit 0), so nothing can be said of all pairs"
        if self.how == "drawn" and not self.ids:
            return (
                f"none of the {self.drawn} pairs drawn at random has a label, so nothing can be said of all pairs; "
                "label what `cai label route` chose, or say --all-labels if the labelled pairs are a random sample"
            )
        if self.waiting:
            return f"{self.waiting} of the {self.drawn} pairs drawn at random have no label yet"
        return ""


def sample(
    drawn: Sequence[Mapping[str, Any]],
    axis: str,
    labelled: Collection[str],
    pairs: Collection[str],
    *,
    every: bool = False,
) -> Sample:
    """The labelled pairs that are a random sample of all, on one axis.

    Of each round of draws, pairs that had a label when they were drawn are thinned to the share of the others that got
    one since: else, while labels are still coming in, they would be too many, and they were labelled for the judge's
    doubt.

    Args:
        drawn: rows of `record`, of any round; those for doubt play no part.
        labelled: comparisons with a label on the axis.
        pairs: all comparisons of the axis.
        every: take all labelled pairs, whatever chose them.
    """
    have = set(labelled) & set(pairs)
    drawn = [row for row in drawn if row.get("comparison_id") in pairs]  # others were judged before a change of the run
    rounds: dict[int, list[Mapping[str, Any]]] = {}
    for row in drawn:
        if row.get("why") == AUDIT:
            rounds.setdefault(int(row.get("round", 0)), []).append(row)
    count = sum(map(len, rounds.values()))
    waiting = sum(str(row["comparison_id"]) not in have for rows in rounds.values() for row in rows)
    if every or not drawn or have >= set(pairs):
        how = "all" if have and have >= set(pairs) else "asked" if every else "assumed"
        return Sample(frozenset(have), how, count, waiting)
    kept: set[str] = set()
    for rows in rounds.values():
        before = [str(row["comparison_id"]) for row in rows if axis in row.get("labelled", ())]
        new = [str(row["comparison_id"]) for row in rows if axis not in row.get("labelled", ())]
        since = [name for name in new if name in have]
        share = len(since) / len(new) if new else 1.0
        kept.update(since)
        kept.update([name for name in before if name in have][: round(share * len(before))])
    return Sample(frozenset(kept), "drawn", count, waiting)


def record(
    earlier: Iterable[Mapping[str, Any]],
    drawn: Sequence[tuple[str, Sequence[str]]],
    unsure: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """The rows of one more round.

    Args:
        drawn: of each comparison drawn at random its id and the axes on which it had a label by then.
        unsure: comparisons chosen for the judge's doubt.
    """
    number = 1 + max((int(row.get("round", 0)) for row in earlier), default=0)
    rows = [
        {"comparison_id": name, "why": AUDIT, "round": number, "seed": seed, "labelled": sorted(axes)}
        for name, axes in drawn
    ]
    return rows + [{"comparison_id": name, "why": UNSURE, "round": number, "seed": seed} for name in unsure]
