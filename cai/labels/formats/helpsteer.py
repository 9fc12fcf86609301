"""HelpSteer2 and 3: preference strength from -3 to 3, negative where response 1 is better.

HelpSteer3 keeps each person's score in `individual_preference`; HelpSteer2 only the mean, `preference_strength`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, answer, as_number, as_text, conversation, from_strength, listed, order, text
from cai.labels.shown import sides

NAME = "helpsteer"
DESCRIPTION = "HelpSteer2/3: context, response1, response2, preference -3..3 (negative: response 1 is better)."
SUFFIX = "jsonl"
CARRIES = frozenset({"strength", "note", "both_bad", "order"})
LEVELS = (1, 2, 3, 4, 5, 6, 7)
NEITHER = -100
"""How HelpSteer3 marks that neither answer is valid."""
SCORE = {"left": -2, "right": 2, "tie": 0, "both_bad": NEITHER}
"""Of verdicts without a strength."""


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    texts = {"context": [turn.row() for turn in item.messages], "response1": left, "response2": right}
    return texts | {"pair_id": item.comparison_id, "order": order, "individual_preference": []}


def labelled(item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]:
    """One row with everybody's score."""
    people = [
        {
            "annotator": each.annotator,
            "score": SCORE[each.verdict] if each.strength is None else each.strength - 4,
            "reasoning": each.note,
        }
        for each in said
    ]
    return [task(item, order) | {"order": said[0].order, "individual_preference": people}]


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    people = listed(row.get("individual_preference"), "individual_preference")
    if people:
        found = []
        for number, each in enumerate(people, start=1):
            if not isinstance(each, Mapping):
                raise InputError("a person's preference is not an object")
            who = text(each, "annotator", needed=False) or f"person {number}"
            found.append(_said(row, each.get("score"), who, as_text(each.get("reasoning"), "reasoning")))
        return found
    for name in ("overall_preference", "preference_strength", "preference"):
        if row.get(name) not in (None, ""):
            return [_said(row, row[name], "helpsteer", text(row, "preference_statement", needed=False))]
    return ()


def _said(row: Mapping[str, Any], score: Any, who: str, note: str) -> Said:
    value = as_number(score, "the preference")
    if value == NEITHER:
        return _row(row, who, "both_bad", None, note)
    if not -3 <= value <= 3:
        raise InputError(f"a preference of {value} is not between -3 and 3")
    if value != round(value):  # a mean of several people
        return _row(row, who, "left" if value < 0 else "right", None, note, {"preference": value})
    strength = round(value) + 4
    return _row(row, who, from_strength(strength), strength, note)


def _row(
    row: Mapping[str, Any],
    who: str,
    verdict: str,
    strength: int | None,
    note: str,
    extra: Mapping[str, Any] | None = None,
) -> Said:
    return Said(
        pair=text(row, "pair_id", needed=False),
        verdict=verdict,
        annotator=who,
        left=answer(row, "response1"),
        right=answer(row, "response2"),
        prompt=conversation(row.get("context"), "context"),
        strength=strength,
        order=order(row),
        note=note,
        extra=extra or {},
    )


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    people = row.get("individual_preference")
    if not isinstance(people, list):
        return ("rows carry one strength for all people: they count as one person's votes",)
    if any(isinstance(each, Mapping) and not each.get("annotator") for each in people):
        return (
            "people have no names: the first of each row is `person 1`, though it need not be the same person; "
            "figures by annotator mean nothing, and nobody's votes should be weighted by them",
        )
    return ()
