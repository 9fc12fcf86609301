"""`cai label route` and `winrate` on a run: what people should label next, and what labels so far allow to say.

All is computed on each axis by itself: a pair that is decided on one axis is open on another.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cai import people, runs
from cai.errors import InputError
from cai.labels import annotators, ppi, route
from cai.labels import audit as audits
from cai.labels.events import effective
from cai.labels.fuse import ballot, judge_logits
from cai.labels.items import Item, by_id, is_current, items_of, p_of_a
from cai.labels.shown import prompt_text
from cai.labels.standing import OnAxis, told
from cai.labels.table import SAID
from cai.records import HumanLabel, Preference
from cai.runs import RunFolder
from cai.store import Lock, encode, read_rows, replacing


def routed_path(place: RunFolder) -> Path:
    """Where a run keeps which of its pairs were chosen, and why."""
    return place.path / "routed.jsonl"


def route_run(
    run: Path,
    n: int,
    *,
    audit: float = 0.1,
    certify: float | None = None,
    seed: int = 0,
    out: Path | None = None,
    axis: str | None = None,
    every: bool = False,
) -> dict[str, Any]:
    """Choose the next `n` pairs of a run and report what the labels so far say of the judge, axis by axis.

    The chosen are written to `out` (`comparison_id`, `why`, `entropy`), those at random unmarked in order and place,
    and recorded in the run. Without `out` nothing is written. The same again, before anybody labels, gives the same.
    Pairs that the last merge set aside, and that nobody has labelled since, come first: each needs one more person.

    Args:
        axis: the only one that matters; by default all that were judged or labelled.
        every: the labelled pairs are a random sample, whatever the run's record says.

    Raises:
        InputError: nothing has been judged, or no such axis.
        RunError: another process works on the run.
    """
    place = runs.open_run(run)
    with Lock(place.path) if out is not None else contextlib.nullcontext():
        made = people.judged(place)
        known = by_id(items_of(made))
        ids = list(known)
        earlier = _earlier(place)
        views = _views(place, made, known, earlier, axis, every)
        p = np.stack([view.p for view in views], axis=1)
        labelled = np.stack([view.labelled for view in views], axis=1)
        texts = [prompt_text(known[name].messages) for name in ids]
        groups = route.clusters(texts, [known[name].prompt_id for name in ids])
        aside = _set_aside(place, known, n)
        waiting = {people.comparison_of(row) for row in aside}
        left = n - len(waiting)
        free = np.flatnonzero(~labelled.all(axis=1)).tolist()
        drawn = {str(row["comparison_id"]) for row in earlier if row.get("why") == audits.AUDIT}
        count = math.ceil(min(left, len(free)) * audit)
        slice_ = route.draw(ids, free, count, seed=seed, drawn=[i for i, name in enumerate(ids) if name in drawn])
        chosen = route.choose(ids, p, groups, labelled, left, seed=seed, at_random=slice_)
        chosen = [pick for pick in chosen if ids[pick.index] not in waiting]  # they are asked about as it is
        if out is not None:
            _write(out, aside, ids, chosen)
            axes = np.array([view.axis for view in views])
            fresh = [(ids[i], [str(axis) for axis in axes[labelled[i]]]) for i in slice_.new]
            unsure = [ids[pick.index] for pick in chosen if pick.why == audits.UNSURE]
            _record(place, earlier, audits.record(earlier, fresh, unsure, seed))
    order = [pick.index for pick in chosen]
    return {
        "chosen": [*sorted(waiting), *(ids[index] for index in order)],
        "set_aside": len(waiting),
        "audit": sum(pick.why == audits.AUDIT for pick in chosen),
        "audit_labelled": len(set(slice_.new) - set(free)),
        "of": len(ids),
        "axes": {view.axis: told(view, ids, groups, order, certify or 0.9, seed) for view in views},
    }


def _set_aside(place: RunFolder, known: Mapping[str, Item], most: int) -> list[dict[str, Any]]:
    """Rows of the last merge's quarantine that still wait for one more person, of at most so many pairs."""
    if not place.merge_quarantine.is_file():
        return []
    more, _ = people.further(place, place.merge_quarantine)
    wanted = [name for name, count in more.items() if count and name in known][:most]
    rows = (dict(row) for row in read_rows(place.merge_quarantine))
    return [row for row in rows if people.comparison_of(row) in wanted]


def _write(out: Path, aside: Sequence[Mapping[str, Any]], ids: Sequence[str], chosen: Sequence[route.Pick]) -> None:
    with replacing(out) as file:
        for row in aside:
            file.write(encode({**row, "comparison_id": people.comparison_of(row), "why": "set_aside"}))
        for pick in chosen:
            file.write(encode({"comparison_id": ids[pick.index], "why": pick.why, "entropy": round(pick.entropy, 4)}))


def _earlier(place: RunFolder) -> list[dict[str, Any]]:
    path = routed_path(place)
    return [dict(row) for row in read_rows(path)] if path.is_file() else []


def _record(place: RunFolder, earlier: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep what is new: a pair drawn or chosen again in the same round of labelling is recorded once."""
    known = {(row.get("comparison_id"), row.get("why")) for row in earlier}
    new = [row for row in rows if (row["comparison_id"], row["why"]) not in known]
    if new:
        with replacing(routed_path(place)) as file:
            for row in (*earlier, *new):
                file.write(encode(row))


def _labels(place: RunFolder, known: Mapping[str, Item]) -> list[HumanLabel]:
    """Effective labels of the texts as they are now; answers to gold items, which check people, are none."""
    return annotators.ordinary([label for label in effective(people.events_of(place)) if is_current(label, known)])


# --- one axis ---------------------------------------------------------------------------------------------------------


def _views(
    place: RunFolder,
    made: Sequence[Preference],
    known: Mapping[str, Item],
    earlier: Sequence[Mapping[str, Any]],
    axis: str | None,
    every: bool,
) -> list[OnAxis]:
    """A view of each axis that was judged or labelled; of the overall question only where it is the one labelled.

    Raises:
        InputError: no such axis.
    """
    labels = _labels(place, known)
    judged: dict[str, dict[str, float]] = {}
    for row in made:
        mine = judged.setdefault(row.axis, {})
        if (said := p_of_a(row)) is not None:
            mine[row.comparison_id] = said
    by_axis: dict[str, list[HumanLabel]] = {name: [] for name in judged}
    for label in labels:
        by_axis.setdefault(label.axis, []).append(label)
    if by_axis.get("") == [] and len(by_axis) > 1:  # people were asked more closely than the judge was
        del by_axis[""]
    if axis is not None and axis not in by_axis:
        there = ", ".join(name or "''" for name in sorted(by_axis))
        raise InputError(f"nothing was judged or labelled on the axis {axis!r}", mend=f"one of: {there}")
    return [
        _view(name, found, judged.get(name, judged.get("", {})), known, earlier, every)
        for name, found in sorted(by_axis.items())
        if axis is None or name == axis
    ]


def _view(
    axis: str,
    labels: Sequence[HumanLabel],
    judged: Mapping[str, float],
    known: Mapping[str, Item],
    earlier: Sequence[Mapping[str, Any]],
    every: bool,
) -> OnAxis:
    ids = list(known)
    where = {name: number for number, name in enumerate(ids)}
    votes = [
        (where[label.comparison_id], label.annotator, SAID[label.verdict]) for label in labels if label.verdict in SAID
    ]
    ai = np.array([[judged.get(name, np.nan)] for name in ids]).reshape(len(ids), 1)
    given = ballot(ids, votes, ai, [known[name].prompt_id for name in ids])
    labelled = np.zeros(len(ids), dtype=bool)
    labelled[[number for number, _, _ in votes]] = True
    have = {ids[number] for number, _, _ in votes}
    sample = audits.sample(earlier, axis, have, set(ids), every=every)
    return OnAxis(axis, labels, given, np.asarray(1 / (1 + np.exp(-judge_logits(given)))), labelled, sample)


# --- win rates --------------------------------------------------------------------------------------------------------


def win_rate(run: Path, source: str, *, axis: str = "", every: bool = False) -> dict[str, Any]:
    """How often people prefer the answers of one source of samples to the others', from people's and all AI labels.

    Args:
        source: name of a source of the recipe's `sample` block.
        every: the labelled pairs are a random sample, whatever the run's record says.

    Raises:
        InputError: no such source or axis, or labels of a random sample on too few prompts.
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
    axes = sorted({row.axis for row in made})
    if axis not in axes:
        raise InputError(f"the judge was not asked on the axis {axis!r}", mend=f"--axis {' or '.join(axes)}")
    known = by_id(items_of(made))
    said: dict[str, list[float]] = {}
    for label in _labels(place, known):
        if label.axis == axis and label.y is not None:
            said.setdefault(label.comparison_id, []).append(label.y)
    sample = audits.sample(_earlier(place), axis, said, set(known), every=every)
    y, f, rest = [], [], []
    for row in made:
        item, p = known[row.comparison_id], p_of_a(row)
        mine = [sources.get(item.a.id) == source, sources.get(item.b.id) == source]
        if row.axis != axis or p is None or mine[0] == mine[1]:
            continue
        its = p if mine[0] else 1 - p
        if row.comparison_id in sample.ids:
            mean = float(np.mean(said[row.comparison_id]))
            y.append((mean if mine[0] else 1 - mean, item.prompt_id))
            f.append((its, item.prompt_id))
        else:
            rest.append((its, item.prompt_id))
    labelled = {prompt for _, prompt in y}
    if len(labelled) < ppi.LEAST:
        drawn = "drawn at random " if sample.how == "drawn" else ""
        raise InputError(
            f"people labelled pairs {drawn}of {len(labelled)} prompts with {source!r}"
            + (f" on the axis {axis!r}" if axis else "")
            + f"; {ppi.LEAST} are needed for an interval that holds",
            mend="label more of what `cai label route` chooses"
            + (", or say --all-labels if the labelled pairs are a random sample" if sample.how == "drawn" else ""),
        )
    ys, _ = ppi.by_cluster([value for value, _ in y], [prompt for _, prompt in y])
    fs, _ = ppi.by_cluster([value for value, _ in f], [prompt for _, prompt in f])
    others = [(value, prompt) for value, prompt in rest if prompt not in labelled]
    unlabelled = ppi.by_cluster([v for v, _ in others], [q for _, q in others])[0] if others else np.zeros(0)
    return {
        "source": source,
        "axis": axis,
        "sample": sample.row(),
        "warning": sample.warning,
        "prompts_labelled": len(ys),
    } | ppi.prediction_powered(ys, fs, unlabelled)
