"""alpaca_eval: instruction, output_1, output_2, preference from 1 to 2 (1.5 is a tie)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, as_number
from cai.labels.shown import ids, prompt_text, sides

NAME = "alpaca_eval"
DESCRIPTION = "alpaca_eval: instruction, output_1, output_2, preference (1 to 2; 1.5 is a tie), annotator."
SUFFIX = "json"


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    one, two = ids(item, order)
    texts = {"instruction": prompt_text(item.messages), "output_1": left, "output_2": right}
    return texts | {"generator_1": one, "generator_2": two, "pair_id": item.comparison_id, "order": order}


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    if row.get("preference") in (None, ""):
        return ()
    value = as_number(row["preference"], "preference")
    if value == 0:  # how alpaca_eval writes a tie in its older files
        value = 1.5
    if not 1 <= value <= 2:
        raise InputError(f"a preference of {value} is not between 1 and 2")
    order = str(row.get("order") or "")
    return (
        Said(
            pair=str(row.get("pair_id") or ""),
            verdict="tie" if value == 1.5 else "left" if value < 1.5 else "right",
            annotator=str(row.get("annotator") or row.get("annotator_index") or "alpaca_eval"),
            left=row.get("output_1"),
            right=row.get("output_2"),
            prompt=row.get("instruction"),
            order=order if order in ("ab", "ba") else "",
            seconds=None,
            extra={"preference": value} if value not in (1, 1.5, 2) else {},
        ),
    )


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return () if "annotator" in row else ("rows name no annotator: all votes count as one person's",)
