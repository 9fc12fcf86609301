"""crowd-kit: task, worker, label; the task is our comparison id, the label of the order shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.labels.items import Item
from cai.labels.said import Said, answer, order, text, word
from cai.labels.shown import prompt_text, sides

NAME = "crowdkit"
DESCRIPTION = "crowd-kit: task (our pair id), worker, label (left, right, tie)."
SUFFIX = "csv"
CARRIES = frozenset({"both_bad"})
TURNED = {"left": "right", "right": "left"}
OWN = {"left": "a", "right": "b"}


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    shown = {"prompt": prompt_text(item.messages), "left": left, "right": right, "order": order}
    return {"task": item.comparison_id, "worker": "", "label": "", **shown}


def labelled(item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]:
    """A row a verdict, in the comparison's own order: else labels of two people could not be counted together."""
    own = [TURNED.get(each.verdict, each.verdict) if order == "ba" else each.verdict for each in said]
    return [
        {"task": item.comparison_id, "worker": each.annotator, "label": OWN.get(verdict, verdict)}
        for each, verdict in zip(said, own, strict=True)
    ]


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    if row.get("label") in (None, ""):
        return ()
    return (
        Said(
            pair=text(row, "task"),
            verdict=word(row["label"]),
            annotator=text(row, "worker"),
            left=answer(row, "left"),
            right=answer(row, "right"),
            prompt=answer(row, "prompt"),
            order=order(row),
        ),
    )


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return () if "order" in row or "left" in row else ("rows do not say which answer stood left: `left` is taken as a",)
