"""`cai label route` and `winrate` on a run: what people should label next, and what labels so far allow to say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cai import people, runs
from cai.errors import InputError
from cai.labels import certify as certificates
from cai.labels import ppi, route
from cai.labels.alttest import alt_test
from cai.labels.events import effective
from cai.labels.fuse import ballot, judge_logits, together
from cai.labels.items import by_id, items_of, p_of_a
from cai.labels.shown import prompt_text
from cai.labels.table import SAID
from cai.records import HumanLabel
from cai.store import encode, read_rows, replacing

PERSON = 0.95
"""How often one person is right, until two people have labelled some of the same pairs."""

AUDIT = "audit"


def route_run(
    run: Path, n: int, *, audit: float = 0.1, certify: float | None = None, seed: int = 0, out: Path | None = None
) -> dict[str, Any]:
    """Choose the next `n` pairs of a run and report what the labels so far say of the judge.

    The chosen are written to `out` (`comparison_id`, `why`, `entropy`), those at random unmarked in order and place.

    Raises:
        InputError: nothing has been judged.
    """
    place = runs.open_run(run)
    made = people.judged(place)
    known = by_id(items_of(made))
    ids = list(known)
    labels = [label for label in effective(people.events_of(place)) if label.comparison_id in known]
    raw: dict[str, list[float]] = {}
    for row in made:
        if (said := p_of_a(row)) is not None:
            raw.setdefault(row.comparison_id, []).append(said)
    ai = np.array([[float(np.mean(raw[name])) if name in raw else np.nan] for name in ids])
    where = {name: number for number, name in enumerate(ids)}
    votes = [
        (where[label.comparison_id], f"{label.annotator} {label.axis}", SAID[label.verdict])
        for label in labels
        if label.verdict in SAID
    ]
    given = ballot(ids, votes, ai, [known[name].prompt_id for name in ids])
    logits = judge_logits(given) if votes else np.where(np.isnan(ai[:, 0]), np.nan, _logit(together(ai)))
    p = np.asarray(1 / (1 + np.exp(-logits)))
    labelled = np.array([False] * len(ids))
    labelled[[number for number, _, _ in votes]] = True
    texts = [prompt_text(known[name].messages) for name in ids]
    groups = route.clusters(texts, [known[name].prompt_id for name in ids])
    chosen = route.choose(ids, p, groups, labelled, n, audit=audit, seed=seed)
    person = _person(labels)
    points = sorted({0, *(len(chosen) * k // 4 for k in range(1, 5))})
    report = {
        "chosen": [ids[pick.index] for pick in chosen],
        "audit": sum(pick.why == AUDIT for pick in chosen),
        "labelled": int(labelled.sum()),
        "of": len(ids),
        "person_right": round(person, 4),
        "curve": route.curve(p, [pick.index for pick in chosen], person, points),
        "judge": _judge(p, given, labelled),
        "certified": _certified(p, given, groups, certify or 0.9, seed),
        "alt_test": _alt(labels, dict(zip(ids, p.tolist(), strict=True))),
    }
    if out is not None:
        with replacing(out) as file:
            for pick in chosen:
                file.write(
                    encode({"comparison_id": ids[pick.index], "why": pick.why, "entropy": round(pick.entropy, 4)})
                )
    return report


def _logit(p: Any) -> Any:
    held = np.clip(p, 1e-6, 1 - 1e-6)
    return np.log(held / (1 - held))


def _person(labels: list[HumanLabel]) -> float:
    """How often one person is right: from r = a^2 + (1 - a)^2, the probability that two say the same of a pair."""
    by_item: dict[tuple[str, str], list[float]] = {}
    for label in labels:
        if label.y is not None and label.y != 0.5:
            by_item.setdefault((label.comparison_id, label.axis), []).append(label.y)
    pairs = [(said[0] == said[1]) for said in by_item.values() if len(said) > 1]
    if len(pairs) < 20:
        return PERSON
    agree = max(0.5, sum(pairs) / len(pairs))
    return float(0.5 + np.sqrt(max(0.0, 2 * agree - 1)) / 2)


def _majority(given: Any) -> Any:
    counts = given.table.counts() if len(given.table) else np.zeros((len(given.prompts), 3))
    return np.where(counts[:, 0] > counts[:, 2], 1.0, np.where(counts[:, 2] > counts[:, 0], 0.0, np.nan))


def _judge(p: Any, given: Any, labelled: Any) -> dict[str, Any]:
    truth = _majority(given)
    kept = ~np.isnan(truth) & ~np.isnan(p)
    if not kept.any():
        return {"n": 0, "said": "nobody has labelled what it judged"}
    right = (p[kept] > 0.5) == (truth[kept] > 0.5)
    return {
        "n": int(kept.sum()),
        "accuracy": round(float(right.mean()), 4),
        "said": f"agrees with people on {right.mean():.0%} of {kept.sum()} labelled pairs",
    }


def _certified(p: Any, given: Any, groups: list[str], agreement: float, seed: int) -> dict[str, Any]:
    """One labelled pair a cluster of prompts, drawn by its place: pairs of one prompt are not independent."""
    truth = _majority(given)
    kept = np.flatnonzero(~np.isnan(truth) & ~np.isnan(p))
    rng = np.random.default_rng(seed)
    first: dict[str, int] = {}
    for index in rng.permutation(kept):
        first.setdefault(groups[index], int(index))
    chosen = np.array(sorted(first.values()), dtype=np.int64)
    if not len(chosen):
        return {"threshold": None, "said": "cannot certify anything: nobody has labelled what the judge judged"}
    right = ((p[chosen] > 0.5) == (truth[chosen] > 0.5)).astype(np.float64)
    return certificates.certify(np.maximum(p[chosen], 1 - p[chosen]), right, agreement).row()


def _alt(labels: list[HumanLabel], p: dict[str, float]) -> dict[str, Any]:
    votes: dict[str, dict[str, float]] = {}
    for label in labels:
        if label.y is not None:
            votes.setdefault(f"{label.comparison_id} {label.axis}", {})[label.annotator] = label.y
    verdicts = {name: 1.0 if (q := p[name.split(" ")[0]]) > 0.5 else 0.0 if q < 0.5 else 0.5 for name in votes}
    return alt_test(votes, {name: value for name, value in verdicts.items() if not np.isnan(p[name.split(" ")[0]])})


def win_rate(run: Path, source: str, *, axis: str = "") -> dict[str, Any]:
    """How often people prefer the answers of one source of samples to the others', from people's and all AI labels.

    Args:
        source: name of a source of the recipe's `sample` block.

    Raises:
        InputError: no such source, or fewer than two prompts with people's labels.
    """
    place = runs.open_run(run)
    made = people.judged(place)
    sources = {}
    if place.samples.is_file():
        sources = {
            str(row["id"]): str((row.get("sampling") or {}).get("source", "")) for row in read_rows(place.samples)
        }
    if source not in sources.values():
        there = sorted(set(sources.values()))
        raise InputError(f"no source {source!r} among the samples", mend=f"one of: {', '.join(there)}")
    said: dict[str, list[float]] = {}
    for label in effective(people.events_of(place)):
        if label.axis == axis and label.y is not None:
            said.setdefault(label.comparison_id, []).append(label.y)
    known = by_id(items_of(made))
    y, f, rest = [], [], []
    for row in made:
        item, p = known[row.comparison_id], p_of_a(row)
        mine = [sources.get(item.a.id) == source, sources.get(item.b.id) == source]
        if row.axis != axis or p is None or mine[0] == mine[1]:
            continue
        its = p if mine[0] else 1 - p
        if row.comparison_id in said:
            mean = float(np.mean(said[row.comparison_id]))
            y.append((mean if mine[0] else 1 - mean, item.prompt_id))
            f.append((its, item.prompt_id))
        else:
            rest.append((its, item.prompt_id))
    labelled = {prompt for _, prompt in y}
    if len(labelled) < 2:
        raise InputError(f"people labelled pairs of {len(labelled)} prompts with {source!r}; two are needed")
    ys, _ = ppi.by_cluster([value for value, _ in y], [prompt for _, prompt in y])
    fs, _ = ppi.by_cluster([value for value, _ in f], [prompt for _, prompt in f])
    others = [(value, prompt) for value, prompt in rest if prompt not in labelled]
    unlabelled = ppi.by_cluster([v for v, _ in others], [q for _, q in others])[0] if others else np.zeros(0)
    return {"source": source, "axis": axis, "prompts_labelled": len(ys)} | ppi.prediction_powered(ys, fs, unlabelled)
