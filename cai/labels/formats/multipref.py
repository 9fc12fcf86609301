"""MultiPref: several annotators a row, a preference on each of three axes and overall.

`overall_pref`, `helpful_pref`, `truthful_pref`, `harmless_pref` are `A-is-clearly-better`, `A-is-slightly-better`,
`Tie`, `B-is-slightly-better`, `B-is-clearly-better`; each becomes a label on its own axis, never merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, answer, first_text, from_strength, listed, order, seconds_of, text, when
from cai.labels.shown import prompt_text, sides

NAME = "multipref"
DESCRIPTION = "MultiPref: completion_a, completion_b and annotations on four axes by several people a row."
SUFFIX = "jsonl"
AXES = {"overall_pref": "", "helpful_pref": "helpful", "truthful_pref": "honest", "harmless_pref": "harmless"}
LEVELS = (1, 3, 4, 5, 7)
CARRIES = frozenset({"axis", "strength", "seconds", "ts", "order"})
WORDS = {
    strength: name
    for name, strength in zip(
        ("A-is-clearly-better", "A-is-slightly-better", "Tie", "B-is-slightly-better", "B-is-clearly-better"),
        LEVELS,
        strict=True,
    )
}
NEAREST = {1: 1, 2: 1, 3: 3, 4: 4, 5: 5, 6: 7, 7: 7}
STRENGTH = {name.lower(): strength for strength, name in WORDS.items()}
WITHOUT = {"left": 3, "right": 5, "tie": 4, "both_bad": 4}
"""The strength that is written of verdicts without one."""
PEOPLE = ("normal_worker_annotations", "expert_worker_annotations", "annotations")


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    texts = {"text": prompt_text(item.messages), "completion_a": left, "completion_b": right}
    return {"comparison_id": item.comparison_id, **texts, "order": order, "annotations": []}


def labelled(item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]:
    """One row with an annotation for each sitting of a person."""
    columns = {axis: name for name, axis in AXES.items()}
    sittings: dict[tuple[Any, ...], dict[str, Any]] = {}
    for each in said:
        mine = sittings.setdefault((each.annotator, each.ts, each.seconds), {"evaluator": each.annotator})
        mine[columns[each.axis]] = WORDS[WITHOUT[each.verdict] if each.strength is None else NEAREST[each.strength]]
        mine |= ({"timestamp": each.ts} if each.ts else {}) | ({"time_spent": each.seconds} if each.seconds else {})
    return [task(item, order) | {"order": said[0].order, "annotations": list(sittings.values())}]


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    found: list[Said] = []
    for group in PEOPLE:
        for person in listed(row.get(group), group):
            if not isinstance(person, Mapping):
                raise InputError(f"an annotation of {group} is not an object")
            who = first_text(person, "evaluator", "annotator")
            if not who.strip():
                raise InputError(f"an annotation of {group} names no evaluator")
            for name, axis in AXES.items():
                told = text(person, name, needed=False)
                if not told:
                    continue
                strength = STRENGTH.get(told.lower())
                if strength is None:
                    raise InputError(f"{name} is {told[:40]!r}", mend=f"one of {', '.join(WORDS.values())}")
                found.append(
                    Said(
                        pair=text(row, "comparison_id", needed=False),
                        verdict=from_strength(strength),
                        annotator=who,
                        left=answer(row, "completion_a"),
                        right=answer(row, "completion_b"),
                        prompt=answer(row, "text"),
                        strength=strength,
                        order=order(row),
                        axis=axis,
                        seconds=seconds_of(person.get("time_spent")),
                        ts=when(person.get("timestamp")),
                    )
                )
    return found


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return ()
