"""What labels so far allow to say of a judge on one axis: how often it is right, what it may label alone, and so on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cai.labels import certify as certificates
from cai.labels import route
from cai.labels.alttest import alt_test
from cai.labels.audit import Sample
from cai.labels.fuse import Ballot
from cai.records import HumanLabel

PERSON = 0.95
"""How often one person is right, until two people have labelled some of the same pairs."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OnAxis:
    """What is known of a run's pairs on one axis, in the order of the run's pairs.

    Attributes:
        labels: effective ones on the axis, of the texts as they are.
        p: shape (pairs,), the judge's calibrated probability of a; NaN where it has no verdict.
        labelled: shape (pairs,).
        sample: the labelled pairs that stand for all.
    """

    axis: str
    labels: Sequence[HumanLabel]
    given: Ballot
    p: Array
    labelled: NDArray[np.bool_]
    sample: Sample


def told(
    view: OnAxis, ids: Sequence[str], groups: Sequence[str], order: Sequence[int], agreement: float, seed: int
) -> dict[str, Any]:
    """The report of one axis. What is said of all pairs comes from the sample alone."""
    person = _person(view.labels)
    points = sorted({0, *(len(order) * k // 4 for k in range(1, 5))})
    # Where people have spoken, what they said stands: one more label there buys nothing.
    sure = np.where(np.isnan(view.p), 0.5, np.maximum(view.p, 1 - view.p))
    now = np.where(view.labelled, np.maximum(sure, person), sure)
    inside = np.array([name in view.sample.ids for name in ids])
    truth = np.where(inside, _majority(view.given), np.nan)
    judge = _judge(view.p, truth, view.sample)
    verdicts = dict(zip(ids, view.p.tolist(), strict=True))
    return {
        "labelled": int(view.labelled.sum()),
        "of": len(ids),
        "sample": view.sample.row(),
        "warning": view.sample.warning if len(view.labels) else "",
        "person_right": round(person, 4),
        "curve": route.curve(now, order, person, points),
        "judge": judge,
        "certified": _certified(view.p, truth, groups, agreement, seed),
        "alt_test": _alt(view.labels, verdicts, view.sample.ids),
    }


def _person(labels: Sequence[HumanLabel]) -> float:
    """How often one person is right: from r = a^2 + (1 - a)^2, the probability that two say the same of a pair."""
    by_item: dict[str, list[float]] = {}
    for label in labels:
        if label.y is not None and label.y != 0.5:
            by_item.setdefault(label.comparison_id, []).append(label.y)
    pairs = [(said[0] == said[1]) for said in by_item.values() if len(said) > 1]
    if len(pairs) < 20:
        return PERSON
    agree = max(0.5, sum(pairs) / len(pairs))
    return float(0.5 + np.sqrt(max(0.0, 2 * agree - 1)) / 2)


def _majority(given: Ballot) -> Array:
    counts = given.table.counts() if len(given.table) else np.zeros((len(given.prompts), 3))
    return np.where(counts[:, 0] > counts[:, 2], 1.0, np.where(counts[:, 2] > counts[:, 0], 0.0, np.nan))


def _judge(p: Array, truth: Array, sample: Sample) -> dict[str, Any]:
    kept = ~np.isnan(truth) & ~np.isnan(p)
    if not kept.any():
        return {"n": 0, "said": "nobody has labelled what it judged" + (" and was drawn" if sample.drawn else "")}
    right = (p[kept] > 0.5) == (truth[kept] > 0.5)
    kind = "pairs drawn at random" if sample.how == "drawn" else "labelled pairs"
    return {
        "n": int(kept.sum()),
        "accuracy": round(float(right.mean()), 4),
        "said": f"agrees with people on {right.mean():.0%} of {kept.sum()} {kind}",
    }


def _certified(p: Array, truth: Array, groups: Sequence[str], agreement: float, seed: int) -> dict[str, Any]:
    """One labelled pair a cluster of prompts, drawn by its place: pairs of one prompt are not independent."""
    kept = np.flatnonzero(~np.isnan(truth) & ~np.isnan(p))
    rng = np.random.default_rng(seed)
    first: dict[str, int] = {}
    for index in rng.permutation(kept):
        first.setdefault(groups[index], int(index))
    chosen = np.array(sorted(first.values()), dtype=np.int64)
    if not len(chosen):
        return {"threshold": None, "said": "cannot certify anything: no label of a random sample of what it judged"}
    right = ((p[chosen] > 0.5) == (truth[chosen] > 0.5)).astype(np.float64)
    certainty = np.maximum(p, 1 - p)
    return certificates.certify(certainty[chosen], right, agreement, every=certainty).row()


def _alt(labels: Sequence[HumanLabel], p: Mapping[str, float], sample: Collection[str]) -> dict[str, Any]:
    votes: dict[str, dict[str, float]] = {}
    for label in labels:
        if label.y is not None and label.comparison_id in sample and not np.isnan(p[label.comparison_id]):
            votes.setdefault(label.comparison_id, {})[label.annotator] = label.y
    return alt_test(votes, {name: 1.0 if p[name] > 0.5 else 0.0 if p[name] < 0.5 else 0.5 for name in votes})
