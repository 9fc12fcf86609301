"""Chatbot Arena: model_a, model_b, winner (model_a, model_b, tie, tie (bothbad)), judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.labels.items import Item
from cai.labels.said import Said, word
from cai.labels.shown import ids, sides

NAME = "arena"
DESCRIPTION = "Chatbot Arena: model_a, model_b, conversation_a, conversation_b, winner, judge."
SUFFIX = "jsonl"


def task(item: Item, order: str) -> dict[str, Any]:
    one, two = ids(item, order)
    turns = [turn.row() for turn in item.messages]
    left, right = ([*turns, {"role": "assistant", "content": text}] for text in sides(item, order))
    return {
        "question_id": item.comparison_id,
        "model_a": one,
        "model_b": two,
        "conversation_a": left,
        "conversation_b": right,
        "turn": sum(turn.role == "user" for turn in item.messages),
        "order": order,
        "winner": "",
        "judge": "",
    }


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    if row.get("winner") in (None, ""):
        return ()
    order = str(row.get("order") or "")
    return (
        Said(
            pair=str(row.get("question_id") or row.get("pair_id") or ""),
            verdict=word(row["winner"]),
            annotator=str(row.get("judge") or "arena"),
            left=_last(row.get("conversation_a")),
            right=_last(row.get("conversation_b")),
            order=order if order in ("ab", "ba") else "",
            ts=str(row.get("tstamp") or ""),
        ),
    )


def _last(conversation: Any) -> str | None:
    if isinstance(conversation, list) and conversation and isinstance(conversation[-1], Mapping):
        content = conversation[-1].get("content")
        return content if isinstance(content, str) else None
    return None


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return () if row.get("judge") else ("rows name no judge: all votes count as one person's",)
