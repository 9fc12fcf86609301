"""Chatbot Arena: model_a, model_b, winner (model_a, model_b, tie, tie (bothbad)), judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, as_text, conversation, first_text, listed, order, when, word
from cai.labels.shown import ids, sides

NAME = "arena"
DESCRIPTION = "Chatbot Arena: model_a, model_b, conversation_a, conversation_b, winner, judge."
SUFFIX = "jsonl"
CARRIES = frozenset({"ts", "both_bad", "order"})
WINNER = {"left": "model_a", "right": "model_b", "tie": "tie", "both_bad": "tie (bothbad)"}


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


def labelled(item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]:
    """A row a verdict."""
    row = task(item, order)
    return [
        row | {"order": each.order, "winner": WINNER[each.verdict], "judge": each.annotator} | _time(each.ts)
        for each in said
    ]


def _time(ts: str) -> dict[str, float]:
    try:
        return {"tstamp": datetime.fromisoformat(ts).timestamp()} if ts else {}
    except ValueError:
        return {}


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    if row.get("winner") in (None, ""):
        return ()
    left, right = _turns(row, "conversation_a"), _turns(row, "conversation_b")
    return (
        Said(
            pair=first_text(row, "question_id", "pair_id"),
            verdict=word(row["winner"]),
            annotator=first_text(row, "judge") or "arena",
            left=_last(left),
            right=_last(right),
            prompt=conversation(list(left[:-1]), "conversation_a"),
            order=order(row),
            ts=when(row.get("tstamp")),
        ),
    )


def _turns(row: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = listed(row.get(name), name)
    if found and not isinstance(found[-1], Mapping):
        raise InputError(f"a turn of {name} is not an object")
    return found


def _last(turns: Sequence[Any]) -> str | None:
    return as_text(turns[-1].get("content"), "an answer") or None if turns else None


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    return () if row.get("judge") else ("rows name no judge: all votes count as one person's",)
