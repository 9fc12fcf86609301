"""MultiPref: several annotators a row, a preference on each of three axes and overall.

`overall_pref`, `helpful_pref`, `truthful_pref`, `harmless_pref` are `A-is-clearly-better`, `A-is-slightly-better`,
`Tie`, `B-is-slightly-better`, `B-is-clearly-better`; each becomes a label on its own axis, never merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, from_strength, seconds_of
from cai.labels.shown import prompt_text, sides

NAME = "multipref"
DESCRIPTION = "MultiPref: completion_a, completion_b and annotations on four axes by several people a row."
SUFFIX = "jsonl"
AXES = {"overall_pref": "", "helpful_pref": "helpful", "truthful_pref": "honest", "harmless_pref": "harmless"}
STRENGTH = {
    "a-is-clearly-better": 1,
    "a-is-slightly-better": 3,
    "tie": 4,
    "b-is-slightly-better": 5,
    "b-is-clearly-better": 7,
}
PEOPLE = ("normal_worker_annotations", "expert_worker_annotations", "annotations")


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    texts = {"text": prompt_text(item.messages), "completion_a": left, "completion_b": right}
    return {"comparison_id": item.comparison_id, **texts, "order": order, "annotations": []}


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    found: list[Said] = []
    order = str(row.get("order") or "")
    for group in PEOPLE:
        people = row.get(group) or []
        if not isinstance(people, list):
            raise InputError(f"{group} is not a list")
        for person in people:
            who = str(person.get("evaluator") or person.get("annotator") or "")
            if not who:
                raise InputError(f"an annotation of {group} names no evaluator")
            for name, axis in AXES.items():
                told = person.get(name)
                if told in (None, ""):
                    continue
                strength = STRENGTH.get(str(told).lower())
                if strength is None:
                    raise InputError(f"{name} is {str(told)[:40]!r}", mend=f"one of {', '.join(STRENGTH)}")
                found.append(
                    Said(
                        pair=str(row.get("comparison_id") or ""),
                        verdict=from_strength(strength),
                        annotator=who,
                        left=row.get("completion_a"),
                        right=row.get("completion_b"),
                        prompt=row.get("text"),
                        strength=strength,
                        order=order if order in ("ab", "ba") else "",
                        axis=axis,
                        seconds=seconds_of(person.get("time_spent")),
                        ts=str(person.get("timestamp") or ""),
                    )
                )
    return found


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return ()
