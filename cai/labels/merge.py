"""People's labels and the AI judge's preferences to one preference a comparison and axis: a pure function of both.

Axes never meet: each is merged by itself. An abstention is missing. A tie is 0.5, and so is `both_bad`, which leaves a
tag. What people are divided about, or contradict a sure judge about, is set aside for one more person instead of being
decided by a coin, where the policy says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cai.evals import stats
from cai.labels.annotators import gold_rates, right_of
from cai.labels.events import effective
from cai.labels.fuse import Ballot, Decided, ballot, decide
from cai.labels.items import Item, by_id, items_of, p_of_a
from cai.labels.policy import Policy
from cai.labels.table import SAID
from cai.records import PLACES, HumanLabel, Preference, Quarantined, content_hash, margin_of, verdict_of

BOTH_BAD = "both_bad"
HELD_OUT = 30
"""Items with several votes below which policies are not compared on held-out votes."""

WHY_NOT = {
    "split": "as many people say one as the other; ask one more person",
    "conflict": "people contradict a judge that is sure; ask one more person",
}


@dataclass(frozen=True)
class Merged:
    """What came of it.

    Attributes:
        preferences: one a comparison and axis; those of a prompt together, in the order of the AI's, and behind them
            those that only people spoke on.
        explained: a row each, under the preference's id: what each vote and the judge contributed.
        quarantined: those set aside; they are among the preferences as `abstain`.
        report: counts, how people and judge agree, held-out accuracy of policies.
        warnings: where the evidence says that the policy hurts.
    """

    preferences: tuple[Preference, ...]
    explained: tuple[dict[str, Any], ...]
    quarantined: tuple[Quarantined, ...]
    report: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def merge(
    name: str,
    policy: Policy,
    events: Iterable[HumanLabel],
    judged: Sequence[Preference],
    *,
    tie_band: float = 0.0,
) -> Merged:
    """Merge label events into the preferences of a judge.

    Args:
        name: the policy's, for reports.
        events: all of the log; what counts of them is `events.effective`. Labels of comparisons that are not among
            `judged` are counted as unknown and play no part. Those of gold items are no votes: what is right is known
            there. They weigh the people in a policy by reliability.
        tie_band: of the rule that made `judged`; what lies in it is a tie, whoever said it.
    """
    events = list(events)
    items = by_id(items_of(judged))
    said: dict[tuple[str, str], list[HumanLabel]] = {}
    gold: dict[str, list[HumanLabel]] = {}
    unknown = stale = 0
    for label in effective(events):
        item = items.get(label.comparison_id)
        if item is None:
            unknown += 1
        elif label.text_hash and label.text_hash != item.text_hash:
            stale += 1
        elif right_of(label):
            gold.setdefault(label.axis, []).append(label)
        else:
            said.setdefault((label.comparison_id, label.axis), []).append(label)
    rows: dict[tuple[str, str], Preference] = {(row.comparison_id, row.axis): row for row in judged}
    sizes = {row.comparison_id: row.weight for row in judged}
    for comparison_id, axis in said:
        rows.setdefault((comparison_id, axis), _blank(items[comparison_id], axis, sizes[comparison_id]))
    prompts = {name: number for number, name in enumerate(dict.fromkeys(row.prompt_id for row in judged))}
    rows = dict(sorted(rows.items(), key=lambda item: prompts[item[1].prompt_id]))
    made: dict[tuple[str, str], tuple[Preference, dict[str, Any], Quarantined | None]] = {}
    held_out: dict[str, Any] = {}
    for axis in sorted({axis for _, axis in rows}):
        keys = [key for key in rows if key[1] == axis]
        given = _ballot(keys, rows, said, gold_rates(gold.get(axis, ())))
        decided = decide(policy, given)
        start = np.concatenate([[0], np.cumsum([len(_counted(said.get(key, ()))) for key in keys])])
        for number, key in enumerate(keys):
            weights = decided.vote_weight[start[number] : start[number + 1]]
            labels = sorted(said.get(key, ()), key=lambda label: (label.annotator, label.id))
            made[key] = _one(name, policy, rows[key], items[key[0]], labels, decided, number, weights, tie_band)
        held_out[axis] = compare_held_out(policy, given)
    ordered = [made[key] for key in rows]
    preferences = tuple(row for row, _, _ in ordered)
    aside = tuple(row for _, _, row in ordered if row is not None)
    report = {
        "policy": name,
        "digest": policy.digest,
        "preferences": len(preferences),
        "by_source": _count(row.source for row in preferences),
        "by_status": _count(row.status for row in preferences),
        "labels": sum(map(len, said.values())),
        "annotators": len({label.annotator for labels in said.values() for label in labels}),
        "events": len(events),
        "unknown": unknown,
        "stale": stale,
        "gold": sum(map(len, gold.values())),
        "quarantined": _count(row.reason for row in aside),
        "changed": sum(
            old.status == row.status == "ok" and old.chosen != row.chosen
            for row, old in zip(preferences, rows.values(), strict=True)
        ),
        "held_out": {axis: row for axis, row in held_out.items() if row},
    }
    return Merged(
        preferences, tuple(told for _, told, _ in ordered), aside, report, tuple(_warnings(policy, report, said))
    )


def flips(one: Merged, other: Merged) -> list[dict[str, Any]]:
    """The pairs on which two policies do not say the same: another answer chosen, or decided by only one of them."""
    found = []
    by_key = {(row.comparison_id, row.axis): row for row in other.preferences}
    for row in one.preferences:
        twin = by_key.get((row.comparison_id, row.axis))
        if twin is None:
            continue
        if row.status != twin.status or (row.status == "ok" and row.chosen != twin.chosen):
            found.append(
                {
                    "comparison_id": row.comparison_id,
                    "axis": row.axis,
                    "from": {"p_a": p_of_a(row), "status": row.status, "source": row.source},
                    "to": {"p_a": p_of_a(twin), "status": twin.status, "source": twin.source},
                }
            )
    return found


def _counted(labels: Iterable[HumanLabel]) -> list[HumanLabel]:
    return [label for label in labels if label.verdict in SAID]


def _ballot(
    keys: Sequence[tuple[str, str]],
    rows: Mapping[tuple[str, str], Preference],
    said: Mapping[tuple[str, str], Sequence[HumanLabel]],
    gold: Mapping[str, float],
) -> Ballot:
    votes = [
        (number, label.annotator, SAID[label.verdict])
        for number, key in enumerate(keys)
        for label in sorted(_counted(said.get(key, ())), key=lambda label: (label.annotator, label.id))
    ]
    ai = np.array([[math.nan if (p := p_of_a(rows[key])) is None else p] for key in keys], dtype=np.float64)
    prompts = [rows[key].prompt_id for key in keys]
    return ballot([key[0] for key in keys], votes, ai.reshape(len(keys), 1), prompts, gold)


def _one(
    name: str,
    policy: Policy,
    row: Preference,
    item: Item,
    labels: Sequence[HumanLabel],
    decided: Decided,
    number: int,
    weights: Any,
    tie_band: float,
) -> tuple[Preference, dict[str, Any], Quarantined | None]:
    counted = _counted(labels)
    raw = float(decided.p[number])
    p_a = None if math.isnan(raw) else round(raw, PLACES)
    ai = None if math.isnan(decided.ai[number]) else float(decided.ai[number])
    ai_weight = float(decided.ai_weight[number])
    reason = _set_aside(policy, counted, p_a, ai)
    if reason:
        p_a = None
    even = not reason and policy.split == "tie" and p_a is not None and _split(counted)
    if even:
        p_a = 0.5
    tags = tuple(
        dict.fromkeys([*row.tags, *([BOTH_BAD] if any(label.verdict == BOTH_BAD for label in counted) else [])])
    )
    swap = p_a is not None and p_a < 0.5
    chosen, rejected = (item.b, item.a) if swap else (item.a, item.b)
    p = None if p_a is None else round(max(p_a, 1 - p_a), PLACES)
    tie = float(decided.p_tie[number]) if counted else row.p_tie
    p_tie = 0.0 if p is None else round(min(tie, 2 * (1 - p)), PLACES)
    said = "tie" if p is not None and row.status == "tie" else verdict_of(p, 0.0, tie_band)
    used_ai = ai is not None and ai_weight != 0 and not even
    source = "human+ai" if counted and used_ai else "human" if counted else "ai"
    sides = [label.y for label in counted if label.y is not None]
    preference = Preference(
        id=content_hash(row.comparison_id, row.axis, policy.digest, tie_band),
        comparison_id=row.comparison_id,
        group_id=row.group_id,
        prompt_id=row.prompt_id,
        messages=row.messages,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        p=p,
        p_tie=p_tie,
        margin=margin_of(p),
        agreement=sum(1 - abs(y - (0.0 if swap else 1.0)) for y in sides) / len(sides) if sides else row.agreement,
        flipped=row.flipped,
        weight=row.weight,
        axis=row.axis,
        principle_ids=row.principle_ids,
        votes=(*(label.id for label in labels), *row.votes),
        source=source,
        # What the judge alone said was a tie or not before it was calibrated, by a policy too.
        status=verdict_of(p, p_tie, tie_band) if counted else said,
        tags=tags,
    )
    parts = [
        {
            "annotator": label.annotator,
            "label": label.id,
            "verdict": label.verdict,
            "part": round(float(weight), 6),
        }
        for label, weight in zip(counted, weights, strict=True)
    ]
    told = {
        "id": preference.id,
        "comparison_id": row.comparison_id,
        "axis": row.axis,
        "policy": name,
        "parts_are": _parts_are(policy, even),
        "people": parts,
        "not_counted": [
            {"annotator": label.annotator, "label": label.id, "verdict": label.verdict}
            for label in labels
            if label.verdict not in SAID
        ],
        "ai": {"p_a": ai, "part": round(ai_weight, 6), "preference": row.id if row.votes else None},
        "p_a": None if reason else p_a,
        "chosen": "" if p is None else "b" if swap else "a",
        "set_aside": reason,
    }
    aside = None
    if reason:
        aside = Quarantined(
            id=preference.id,
            stage="merge",
            reason=reason,
            detail=WHY_NOT[reason],
            input={"comparison_id": row.comparison_id, "axis": row.axis, "labels": [label.id for label in counted]},
        )
    return preference, told, aside


def _sides(counted: Sequence[HumanLabel]) -> tuple[int, int]:
    return sum(label.verdict == "a" for label in counted), sum(label.verdict == "b" for label in counted)


def _split(counted: Sequence[HumanLabel]) -> bool:
    """Whether as many people say a as b."""
    for_a, for_b = _sides(counted)
    return for_a == for_b > 0


def _parts_are(policy: Policy, even: bool) -> str:
    """What the parts in a decision's explanation are."""
    if even:
        return "weight of the vote; as many say one as the other, so it is a tie"
    return "log-likelihood ratio towards a; a tie draws to 0.5" if policy.method == "fused" else "weight of the vote"


def _set_aside(policy: Policy, counted: Sequence[HumanLabel], p_a: float | None, ai: float | None) -> str:
    """Why a pair is not decided: `split`, `conflict`, or "" where it is."""
    if p_a is None:
        return ""
    for_a, for_b = _sides(counted)
    if policy.split == "quarantine" and _split(counted):
        return "split"
    if policy.conflict_margin < 1 and ai is not None and for_a != for_b:
        against = (ai > 0.5) != (for_a > for_b)
        if against and abs(2 * ai - 1) >= policy.conflict_margin and len(counted) < 3:
            return "conflict"
    return ""


def _blank(item: Item, axis: str, weight: float) -> Preference:
    """The place of a comparison on an axis that no judge was asked about."""
    return Preference(
        id="",
        comparison_id=item.comparison_id,
        group_id=item.group_id,
        prompt_id=item.prompt_id,
        messages=item.messages,
        chosen=item.a.text,
        rejected=item.b.text,
        chosen_id=item.a.id,
        rejected_id=item.b.id,
        p=None,
        p_tie=0.0,
        margin=0.0,
        agreement=0.0,
        flipped=0.0,
        weight=weight,
        axis=axis,
        principle_ids=(),
        votes=(),
        status="abstain",
    )


def _count(words: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items()))


def compare_held_out(policy: Policy, given: Ballot) -> dict[str, Any]:
    """How well the policy and people alone foretell a vote that was held out, one of each item with several votes.

    The only evidence that a run has on whether a policy helps: `policy`, `people` (counting the votes left), their
    paired `difference` with its interval by prompt, over `n` items. Empty where there are too few.
    """
    table = given.table
    if not len(table):
        return {}
    counts = np.bincount(table.task, minlength=len(given.prompts))
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(table))
    first = np.full(len(given.prompts), -1)
    first[table.task[shuffled]] = shuffled  # a vote of each item, drawn
    drawn = first[(counts > 1) & (first >= 0)]
    drawn = drawn[table.label[drawn] != 1]
    if len(drawn) < HELD_OUT:
        return {}
    kept = np.ones(len(table), dtype=bool)
    kept[drawn] = False
    rest = Ballot(table.only(kept), given.ai, given.prompts, given.gold)
    tasks = table.task[drawn]
    truth = np.where(table.label[drawn] == 0, 1.0, 0.0)
    right = {}
    alone = policy.model_copy(update={"method": "counts", "people": "equal", "kappa": 0.0, "kappa_few": 0.0})
    for name, each in (("policy", policy), ("people", alone)):
        p = decide(each, rest).p[tasks]
        right[name] = stats.correct(np.round(np.where(np.isnan(p), 0.5, p), PLACES), truth)
    prompts = given.prompts[tasks].tolist()
    gap = stats.paired_difference(right["policy"], right["people"], prompts, seed=0)
    return {
        "n": len(drawn),
        "policy": round(float(right["policy"].mean()), 4),
        "people": round(float(right["people"].mean()), 4),
        "difference": {"mean": round(gap.mean, 4), "ci": [round(end, 4) for end in gap.interval.row()]},
    }


def _warnings(
    policy: Policy, report: Mapping[str, Any], said: Mapping[tuple[str, str], Sequence[HumanLabel]]
) -> Iterable[str]:
    for axis, found in report["held_out"].items():
        low, high = found["difference"]["ci"]
        where = f" on the axis {axis}" if axis else ""
        numbers = f"({found['policy']:.1%} against {found['people']:.1%} of {found['n']} held-out votes)"
        if high < 0:
            yield f"this policy foretells people worse than people's own votes do{where} {numbers}; use human_first"
        elif policy.method == "fused" and low <= 0:
            yield f"nothing shows that fusing helps here{where} {numbers}; human_first is the safe choice"
    if policy.method == "fused" and said and not report["held_out"]:
        yield "too few pairs have two people's votes to see whether fusing helps; let people label some pairs twice"
    per_item = [len(_counted(labels)) for labels in said.values()]
    if policy.method == "dawid_skene" and per_item and sum(per_item) / len(per_item) < 5:
        yield (
            "Dawid-Skene has fewer than 5 votes a pair to go by; with so few it is often worse than counting "
            "(PandaLM, 3 people: see benchmarks/results)"
        )
    if not policy.ai_alone and report["by_status"].get("abstain"):
        yield f"{report['by_status']['abstain']} pairs are without a label under this policy"
    if report["stale"]:
        yield f"{report['stale']} labels are of texts that have changed since and were left out"
    if report["unknown"]:
        yield f"{report['unknown']} labels are of comparisons that are not in this run"
