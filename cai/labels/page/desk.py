"""What an annotator is shown, and what a verdict means: pure functions, no database and no HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.shown import order_of
from cai.records import Candidate, HumanLabel, Messages, content_hash

Mode = Literal["pairs", "rating", "ranking"]
MODES: tuple[Mode, ...] = ("pairs", "rating", "ranking")
VERDICTS = ("left", "right", "tie", "both_bad", "skip")
LONGEST_NOTE, LONGEST_EDIT = 20_000, 100_000


@dataclass(frozen=True)
class Task:
    """One thing to label: a pair, or in the modes `rating` and `ranking` all answers of a group.

    Attributes:
        answers: in their own order; for a pair the comparison's a and b.
        comparisons: of each pair of answers (by place), its comparison id.
        gold: by axis, the right verdict (`a` or `b`) where the task checks annotators.
        hints: by axis, what the AI judge says (probability of the first answer), shown only where that is asked for.
    """

    id: str
    group_id: str
    prompt_id: str
    messages: Messages
    answers: tuple[Candidate, ...]
    comparisons: Mapping[tuple[int, int], str]
    text_hash: str
    gold: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, float] = field(default_factory=dict)


def tasks_of(
    items: Sequence[Item],
    mode: Mode,
    hints: Mapping[tuple[str, str], float] | None = None,
    gold: Mapping[str, Mapping[str, str]] | None = None,
    about: str = "",
) -> list[Task]:
    """Tasks in the order of the items; in the other modes one a group, with all its answers that items name.

    Args:
        about: the axes that are asked about, where those are not all: what is asked elsewhere is a task of its own.
        hints: the judge's probability of a, by comparison and axis.
        gold: right verdicts, by comparison and then by axis.
    """
    if mode == "pairs":
        told: dict[str, dict[str, float]] = {}
        for (name, axis), p in (hints or {}).items():
            told.setdefault(name, {})[axis] = p
        return [
            Task(
                f"{item.comparison_id} {about}" if about else item.comparison_id,
                item.group_id,
                item.prompt_id,
                item.messages,
                (item.a, item.b),
                {(0, 1): item.comparison_id},
                item.text_hash,
                (gold or {}).get(item.comparison_id, {}),
                told.get(item.comparison_id, {}),
            )
            for item in items
        ]
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group_id, []).append(item)
    return [_group(group_id, found, about) for group_id, found in groups.items()]


def _group(group_id: str, items: Sequence[Item], about: str) -> Task:
    answers = {candidate.id: candidate for item in items for candidate in (item.a, item.b)}
    place = {name: number for number, name in enumerate(answers)}
    comparisons = {(place[item.a.id], place[item.b.id]): item.comparison_id for item in items}
    first = items[0]
    return Task(
        f"{group_id} {about}" if about else group_id,
        group_id,
        first.prompt_id,
        first.messages,
        tuple(answers.values()),
        comparisons,
        content_hash([item.text_hash for item in items], length=16),
    )


def order_for(task: Task, annotator: str) -> tuple[int, ...]:
    """The places of the answers in the order in which this person sees them, drawn by hash."""
    if len(task.answers) == 2:
        item = Item(task.id, task.group_id, task.prompt_id, task.messages, task.answers[0], task.answers[1])
        return (0, 1) if order_of(item, who=annotator) == "ab" else (1, 0)
    return tuple(
        sorted(range(len(task.answers)), key=lambda k: content_hash("order", task.id, annotator, task.answers[k].id))
    )


def ticket(task: Task, annotator: str) -> str:
    """What a verdict must bring back: it stands for this person, this order and these texts, and tells none of them.

    Without it a verdict would be read by whoever's cookie the browser holds when it arrives, and in their order.
    """
    return content_hash("ticket", task.id, annotator, list(order_for(task, annotator)), task.text_hash)


def shown(task: Task, annotator: str, *, hint: bool) -> dict[str, Any]:
    """What the page gets: no ids of answers, no gold, nothing of the judge unless `hint`."""
    order = order_for(task, annotator)
    row: dict[str, Any] = {
        "id": task.id,
        "ticket": ticket(task, annotator),
        "messages": [turn.row() for turn in task.messages],
        "answers": [task.answers[k].text for k in order],
    }
    if hint and task.hints:
        row["hints"] = {axis: round(p if order == (0, 1) else 1 - p, 3) for axis, p in task.hints.items()}
    return row


def check(payload: Any, mode: Mode, axes: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """A verdict's payload, only what belongs in it.

    Args:
        axes: what is asked; in the modes `rating` and `ranking` exactly one.
        texts: the answers, in the order in which they were shown.

    Raises:
        InputError: it is not one.
    """
    if not isinstance(payload, Mapping):
        raise InputError("a verdict must be an object")
    count = len(texts)
    kept: dict[str, Any] = {"note": _text(payload, "note"), "edits": _edits(payload, texts)}
    if payload.get("skip") is True:
        # Said of every axis: an earlier verdict on the same item is replaced on all of them.
        return kept | {"skip": True, "axes": {axis: {"verdict": "skip", "strength": None} for axis in axes}}
    if mode != "pairs":
        kept["axis"] = axes[0]
    if mode == "rating":
        ratings: Any = payload.get("ratings")
        if not _whole(ratings, count) or any(not 1 <= value <= 5 for value in ratings):
            raise InputError(f"ratings must be {count} numbers from 1 to 5")
        return kept | {"ratings": list(ratings)}
    if mode == "ranking":
        ranks: Any = payload.get("ranking")
        if not _whole(ranks, count) or any(not 1 <= value <= count for value in ranks):
            raise InputError(f"ranking must be {count} ranks from 1 to {count}; equal ranks are ties")
        return kept | {"ranking": list(ranks)}
    said = payload.get("axes")
    if not isinstance(said, Mapping) or set(said) != set(axes):
        raise InputError(f"axes must be answered: {', '.join(axis or 'overall' for axis in axes)}")
    return kept | {"axes": {axis: _axis(said[axis]) for axis in axes}}


def _axis(said: Any) -> dict[str, Any]:
    if not isinstance(said, Mapping) or said.get("verdict") not in VERDICTS:
        raise InputError(f"a verdict must be one of {', '.join(VERDICTS)}")
    strength = said.get("strength")
    if strength is None or said["verdict"] in ("both_bad", "skip"):
        return {"verdict": said["verdict"], "strength": None}
    if not isinstance(strength, int) or isinstance(strength, bool) or not 1 <= strength <= 7:
        raise InputError("a strength must be a whole number from 1 to 7")
    side = "left" if strength < 4 else "right" if strength > 4 else "tie"
    if side != said["verdict"]:
        raise InputError(f"a strength of {strength} means {side}, not {said['verdict']}")
    return {"verdict": said["verdict"], "strength": strength}


def _whole(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(type(value) is int for value in values)


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name, "")
    if not isinstance(value, str) or len(value) > LONGEST_NOTE:
        raise InputError(f"{name} must be a text of at most {LONGEST_NOTE} characters")
    return whole(value)


def _edits(payload: Mapping[str, Any], texts: Sequence[str]) -> dict[str, str]:
    """The answer that was rewritten, by its place; an answer left as it was is no edit."""
    found = payload.get("edits") or {}
    if not isinstance(found, Mapping) or len(found) > 1:
        raise InputError("edits must be an object with at most one answer, by its place")
    kept = {}
    for place, text in found.items():
        if str(place) not in {str(k) for k in range(len(texts))} or not isinstance(text, str):
            raise InputError("an edit must be a text at the place of an answer")
        if len(text) > LONGEST_EDIT:
            raise InputError(f"an edit has at most {LONGEST_EDIT} characters")
        if text.strip() and text != texts[int(place)]:
            kept[str(place)] = whole(text)
    return kept


def whole(text: str) -> str:
    """The text with halves of surrogate pairs, which no file and no database takes, as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# --- to events --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """A verdict as it is stored."""

    id: str
    task_id: str
    annotator: str
    payload: Mapping[str, Any]
    seconds: float | None
    ts: str
    supersedes: str | None
    undone: bool


def labels(task: Task, given: Given) -> Iterator[HumanLabel]:
    """The label events of a verdict: one a pair and axis. An edit is told with the first of them only."""
    order = order_for(task, given.annotator)
    payload = given.payload
    place, edit = next(iter(dict(payload.get("edits") or {}).items()), ("0", ""))
    raw = {key: value for key, value in payload.items() if key not in ("note", "edits", "axis")}
    for (one, other), comparison_id in task.comparisons.items():
        first = order.index(one) < order.index(other)
        for axis, verdict, strength in _said(payload, order, one, other):
            extra: dict[str, Any] = {"order": list(order), "said": raw} if len(order) > 2 else {}
            if edit:
                extra["edited"] = task.answers[order[int(place)]].id
            if axis in task.gold:
                extra["gold"] = task.gold[axis]
            yield HumanLabel(
                id=content_hash("page", given.id, comparison_id, axis),
                comparison_id=comparison_id,
                group_id=task.group_id,
                axis=axis,
                annotator=given.annotator,
                verdict=verdict,
                strength=strength,
                shown_order="ab" if first else "ba",
                seconds=given.seconds,
                note=str(payload.get("note", "")),
                status="skipped" if payload.get("skip") else "submitted",
                ts=given.ts,
                supersedes=content_hash("page", given.supersedes, comparison_id, axis) if given.supersedes else None,
                edit=edit,
                gold=axis in task.gold,
                source="page",
                # In the other modes the text hash is the group's, which says nothing of one pair.
                text_hash=task.text_hash if len(task.answers) == 2 else "",
                extra=extra,
            )
            edit = ""


def _said(
    payload: Mapping[str, Any], order: Sequence[int], one: int, other: int
) -> Iterator[tuple[str, str, int | None]]:
    """Axis, verdict and strength in the comparison's own order."""
    if "axes" in payload:
        turned = order.index(one) > order.index(other)
        for axis, said in payload["axes"].items():
            word, strength = said["verdict"], said["strength"]
            own = {"left": "b" if turned else "a", "right": "a" if turned else "b", "skip": "abstain"}.get(word, word)
            yield axis, own, strength if strength is None or not turned else 8 - strength
    else:
        values = payload.get("ratings") or [-rank for rank in payload["ranking"]]
        gap = values[order.index(one)] - values[order.index(other)]
        yield payload.get("axis", ""), "a" if gap > 0 else "b" if gap < 0 else "tie", None


def taken_back(label: HumanLabel) -> HumanLabel:
    """The event that takes another back."""
    row = label.row() | {"id": content_hash("undone", label.id), "status": "discarded", "supersedes": label.id}
    return HumanLabel.from_row(row)
