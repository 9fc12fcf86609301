"""Our own columns, as CSV or JSONL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, agreed, answer, first_text, from_strength, order, seconds_of, seven, text, when, word
from cai.labels.shown import prompt_text, sides

STATUS = ("submitted", "draft", "discarded", "skipped")
CARRIES = frozenset({"axis", "strength", "seconds", "note", "edit", "ts", "gold", "both_bad", "abstain", "order"})
EMPTY = ("annotator", "verdict", "strength", "axis", "seconds", "note", "edit", "status", "ts")


def task(item: Item, order: str) -> dict[str, Any]:
    """The texts, and the columns that a person fills in."""
    left, right = sides(item, order)
    shown = {"pair_id": item.comparison_id, "order": order, "prompt": prompt_text(item.messages)}
    return shown | {"left": left, "right": right} | dict.fromkeys(EMPTY, "")


def labelled(item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]:
    """A row a verdict, every column filled in."""
    shown = task(item, order)
    return [
        shown
        | {
            "order": each.order,
            "annotator": each.annotator,
            "verdict": each.verdict,
            "strength": "" if each.strength is None else each.strength,
            "axis": each.axis,
            "seconds": "" if each.seconds is None else each.seconds,
            "note": each.note,
            "edit": each.edit,
            "status": each.status,
            "ts": each.ts,
            "gold": each.gold,
        }
        for each in said
    ]


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    """One verdict a row; a row with neither verdict nor strength was not labelled and says nothing."""
    strength = seven(row.get("strength"))
    told = row.get("verdict")
    if (told is None or str(told).strip() == "") and strength is None:
        return ()
    verdict = word(told) if told not in (None, "") else from_strength(strength or 4)
    status = text(row, "status", needed=False).strip().lower() or "submitted"
    if status not in STATUS:
        raise InputError(f"the status is {status[:20]!r}, not one of {', '.join(STATUS)}")
    return (
        Said(
            pair=first_text(row, "pair_id", "comparison_id"),
            verdict=verdict,
            annotator=text(row, "annotator"),
            left=answer(row, "left"),
            right=answer(row, "right"),
            prompt=answer(row, "prompt"),
            strength=agreed(verdict, strength),
            order=order(row),
            axis=text(row, "axis", needed=False).strip(),
            seconds=seconds_of(row.get("seconds")),
            note=text(row, "note", needed=False),
            ts=when(row.get("ts")),
            status=status,
            edit=text(row, "edit", needed=False),
            gold=_gold(row),
        ),
    )


def _gold(row: Mapping[str, Any]) -> str:
    told = text(row, "gold", needed=False).strip().lower()
    return told if told in ("", "unknown") else word(told)


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return ()
