"""crowd-kit: task, worker, label; the task is our comparison id, the label of the order shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.labels.items import Item
from cai.labels.said import Said, text, word
from cai.labels.shown import prompt_text, sides

NAME = "crowdkit"
DESCRIPTION = "crowd-kit: task (our pair id), worker, label (left, right, tie)."
SUFFIX = "csv"


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    shown = {"prompt": prompt_text(item.messages), "left": left, "right": right, "order": order}
    return {"task": item.comparison_id, "worker": "", "label": "", **shown}


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    if row.get("label") in (None, ""):
        return ()
    order = str(row.get("order") or "")
    return (
        Said(
            pair=text(row, "task"),
            verdict=word(row["label"]),
            annotator=text(row, "worker"),
            left=row.get("left") or None,
            right=row.get("right") or None,
            order=order if order in ("ab", "ba") else "",
        ),
    )


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return () if "order" in row or "left" in row else ("rows do not say which answer stood left: `left` is taken as a",)
