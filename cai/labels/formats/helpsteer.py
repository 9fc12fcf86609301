"""HelpSteer2 and 3: preference strength from -3 to 3, negative where response 1 is better.

HelpSteer3 keeps each person's score in `individual_preference`; HelpSteer2 only the mean, `preference_strength`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, as_number, from_strength
from cai.labels.shown import sides

NAME = "helpsteer"
DESCRIPTION = "HelpSteer2/3: context, response1, response2, preference -3..3 (negative: response 1 is better)."
SUFFIX = "jsonl"


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    texts = {"context": [turn.row() for turn in item.messages], "response1": left, "response2": right}
    return texts | {"pair_id": item.comparison_id, "order": order, "individual_preference": []}


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    people = row.get("individual_preference")
    if isinstance(people, list) and people:
        return [
            _said(
                row,
                each.get("score"),
                str(each.get("annotator") or f"person {number}"),
                str(each.get("reasoning") or ""),
            )
            for number, each in enumerate(people, start=1)
        ]
    for name in ("overall_preference", "preference_strength", "preference"):
        if row.get(name) not in (None, ""):
            return [_said(row, row[name], "helpsteer", str(row.get("preference_statement") or ""))]
    return ()


def _said(row: Mapping[str, Any], score: Any, who: str, note: str) -> Said:
    value = as_number(score, "the preference")
    if value == -100:  # how HelpSteer3 marks that neither is valid
        return _row(row, who, "both_bad", None, note)
    if not -3 <= value <= 3:
        raise InputError(f"a preference of {value} is not between -3 and 3")
    strength = round(value) + 4
    verdict = from_strength(strength) if value == round(value) else ("left" if value < 0 else "right")
    return _row(row, who, verdict, strength, note)


def _row(row: Mapping[str, Any], who: str, verdict: str, strength: int | None, note: str) -> Said:
    order = str(row.get("order") or "")
    return Said(
        pair=str(row.get("pair_id") or ""),
        verdict=verdict,
        annotator=who,
        left=row.get("response1"),
        right=row.get("response2"),
        strength=strength,
        order=order if order in ("ab", "ba") else "",
        note=note,
    )


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    if isinstance(row.get("individual_preference"), list):
        return ()
    return ("rows carry one strength for all people: they count as one person's votes",)
