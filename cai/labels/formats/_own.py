"""Our own columns, as CSV or JSONL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, from_strength, seconds_of, seven, text, word
from cai.labels.shown import prompt_text, sides

EMPTY = ("annotator", "verdict", "strength", "axis", "seconds", "note", "edit", "status", "ts")


def task(item: Item, order: str) -> dict[str, Any]:
    """The texts, and the columns that a person fills in."""
    left, right = sides(item, order)
    shown = {"pair_id": item.comparison_id, "order": order, "prompt": prompt_text(item.messages)}
    return shown | {"left": left, "right": right} | dict.fromkeys(EMPTY, "")


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    """One verdict a row; a row with neither verdict nor strength was not labelled and says nothing."""
    strength = seven(row.get("strength"))
    told = row.get("verdict")
    if (told is None or str(told).strip() == "") and strength is None:
        return ()
    verdict = word(told) if told not in (None, "") else from_strength(strength or 4)
    if strength is not None and verdict in ("left", "right") and from_strength(strength) != verdict:
        raise InputError(f"the verdict is {verdict}, but a strength of {strength} says {from_strength(strength)}")
    order = text(row, "order", needed=False)
    if order not in ("", "ab", "ba"):
        raise InputError(f"the order is {order[:20]!r}, not ab or ba")
    return (
        Said(
            pair=text(row, "pair_id", needed=False) or text(row, "comparison_id", needed=False),
            verdict=verdict,
            annotator=text(row, "annotator"),
            left=row.get("left") or None,
            right=row.get("right") or None,
            prompt=row.get("prompt") or None,
            strength=strength,
            order=order,
            axis=text(row, "axis", needed=False),
            seconds=seconds_of(row.get("seconds")),
            note=text(row, "note", needed=False),
            ts=text(row, "ts", needed=False),
            status=text(row, "status", needed=False) or "submitted",
            edit=text(row, "edit", needed=False),
        ),
    )


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return ()
