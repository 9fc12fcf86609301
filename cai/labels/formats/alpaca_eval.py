"""alpaca_eval: instruction, output_1, output_2, preference from 1 to 2 (1.5 is a tie)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, answer, as_number, first_text, order, text
from cai.labels.shown import ids, prompt_text, sides

NAME = "alpaca_eval"
DESCRIPTION = "alpaca_eval: instruction, output_1, output_2, preference (1 to 2; 1.5 is a tie), annotator."
SUFFIX = "json"
CARRIES = frozenset({"order"})
PREFERENCE = {"left": 1, "right": 2, "tie": 1.5, "both_bad": 1.5}


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    one, two = ids(item, order)
    texts = {"instruction": prompt_text(item.messages), "output_1": left, "output_2": right}
    return texts | {"generator_1": one, "generator_2": two, "pair_id": item.comparison_id, "order": order}


def labelled(item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]:
    """A row a verdict."""
    row = task(item, order)
    return [
        row | {"order": each.order, "preference": PREFERENCE[each.verdict], "annotator": each.annotator}
        for each in said
    ]


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    if row.get("preference") in (None, ""):
        return ()
    value = as_number(row["preference"], "preference")
    if value == 0:  # how alpaca_eval writes a tie in its older files
        value = 1.5
    if not 1 <= value <= 2:
        raise InputError(f"a preference of {value} is not between 1 and 2")
    return (
        Said(
            pair=text(row, "pair_id", needed=False),
            verdict="tie" if value == 1.5 else "left" if value < 1.5 else "right",
            annotator=first_text(row, "annotator", "annotator_index") or "alpaca_eval",
            left=answer(row, "output_1"),
            right=answer(row, "output_2"),
            prompt=answer(row, "instruction"),
            order=order(row),
            extra={"preference": value} if value not in (1, 1.5, 2) else {},
        ),
    )


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return () if "annotator" in row else ("rows name no annotator: all votes count as one person's",)
