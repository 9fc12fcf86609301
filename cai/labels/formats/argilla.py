"""Argilla: records to log there, and its exports, flattened or nested.

The flattened export (`q.responses`, `q.responses.users`, `q.responses.status`) is to be preferred: the nested one drops
each response's status, so that discarded votes look valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, from_strength, word
from cai.labels.shown import prompt_text, sides

NAME = "argilla"
DESCRIPTION = "Argilla: records as JSON; reads flattened exports (preferred) and nested ones. Question: preference."
SUFFIX = "json"
QUESTIONS = ("preference", "comparison", "verdict", "winner")
STATUS = {"submitted": "submitted", "draft": "draft", "discarded": "discarded", "pending": "draft"}


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    fields = {"prompt": prompt_text(item.messages), "answer1": left, "answer2": right}
    return {"id": item.comparison_id, "fields": fields, "metadata": {"pair_id": item.comparison_id, "order": order}}


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    return _nested(row) if isinstance(row.get("fields"), Mapping) else _flat(row)


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    if isinstance(row.get("fields"), Mapping):
        return (
            "a nested Argilla export: it has no status for each response, so discarded votes look valid; "
            "export flattened records instead",
        )
    return ()


def _flat(row: Mapping[str, Any]) -> Sequence[Said]:
    name = next((q for q in QUESTIONS if f"{q}.responses" in row), None)
    if name is None:
        if any(str(key).endswith(".responses") for key in row):
            raise InputError(f"has no question named {' or '.join(QUESTIONS)}")
        return ()
    values = row.get(f"{name}.responses") or []
    users = row.get(f"{name}.responses.users") or []
    states = row.get(f"{name}.responses.status") or []
    if not isinstance(values, list) or len(users) != len(values):
        raise InputError(f"{name}.responses and {name}.responses.users differ in length")
    traps = () if len(states) == len(values) else ("status_unknown",)
    known = states if not traps else ["submitted"] * len(values)
    return [
        _said(row, row, value, user, STATUS.get(str(state), "discarded"), traps)
        for value, user, state in zip(values, users, known, strict=True)
    ]


def _nested(row: Mapping[str, Any]) -> Sequence[Said]:
    responses = row.get("responses") or {}
    if not isinstance(responses, Mapping):
        raise InputError("responses is not an object of questions")
    name = next((q for q in QUESTIONS if q in responses), None)
    if name is None:
        if responses:
            raise InputError(f"has no question named {' or '.join(QUESTIONS)}")
        return ()
    meta = row.get("metadata") or {}
    found = []
    for each in responses[name]:
        if not isinstance(each, Mapping):
            raise InputError("a response is not an object")
        status = STATUS.get(str(each.get("status", "submitted")), "discarded")
        traps = () if "status" in each else ("status_unknown",)
        found.append(
            _said({**meta, "id": row.get("id")}, row["fields"], each.get("value"), each.get("user_id"), status, traps)
        )
    return found


def _said(
    ids: Mapping[str, Any], texts: Mapping[str, Any], value: Any, user: Any, status: str, traps: tuple[str, ...]
) -> Said:
    if user in (None, ""):
        raise InputError("a response names no user")
    told = value.get("value") if isinstance(value, Mapping) else value
    strength = int(told) if isinstance(told, int) and 1 <= told <= 7 else None
    order = str(ids.get("order") or ids.get("metadata.order") or "")
    return Said(
        pair=str(ids.get("pair_id") or ids.get("metadata.pair_id") or ids.get("id") or ""),
        verdict=from_strength(strength) if strength is not None else word(told),
        annotator=str(user),
        left=texts.get("answer1"),
        right=texts.get("answer2"),
        prompt=texts.get("prompt"),
        strength=strength,
        order=order if order in ("ab", "ba") else "",
        status=status,
        traps=traps,
    )
