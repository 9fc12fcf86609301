"""Argilla: records to log there, and its exports, flattened or nested.

The flattened export (`q.responses`, `q.responses.users`, `q.responses.status`) is to be preferred: the nested one drops
each response's status, so that discarded votes look valid. What a question asks is told by its name: `preference` is
the overall verdict, `preference_harmless` that on the axis harmless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.formats._heard import Heard
from cai.labels.formats._named import name_of, named
from cai.labels.items import Item
from cai.labels.said import Said, answer, as_text, first_text, listed, order
from cai.labels.shown import prompt_text, sides

NAME = "argilla"
DESCRIPTION = "Argilla: records as JSON; reads flattened exports (preferred) and nested ones. Question: preference."
SUFFIX = "json"
CARRIES = frozenset({"axis", "strength", "note", "edit", "both_bad", "abstain", "order"})
STATUS = {"submitted": "submitted", "draft": "draft", "discarded": "discarded", "pending": "draft"}


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    fields = {"prompt": prompt_text(item.messages), "answer1": left, "answer2": right}
    return {"id": item.comparison_id, "fields": fields, "metadata": {"pair_id": item.comparison_id, "order": order}}


def guess(row: dict[str, Any], order: str, judged: Mapping[str, float], model: str) -> dict[str, Any]:
    """A record with what the judge says of it, by axis, as suggestions."""
    found = {}
    for axis, p in sorted(judged.items()):
        left = p if order == "ab" else 1 - p
        verdict = "tie" if left == 0.5 else "left" if left > 0.5 else "right"
        found[name_of("preference", axis)] = {"value": verdict, "score": round(max(left, 1 - left), 4), "agent": model}
    return row | {"suggestions": found}


def labelled(item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]:
    """One record as a flattened export has it, with a response to each question by each person."""
    made = task(item, order)
    row = {"id": made["id"], **made["fields"], "metadata.pair_id": item.comparison_id, "metadata.order": said[0].order}
    told: dict[str, dict[str, Any]] = {}
    for each in said:
        told.setdefault(name_of("preference", each.axis), {})[each.annotator] = each.verdict
        if each.strength is not None:
            told.setdefault(name_of("strength", each.axis), {})[each.annotator] = each.strength
        for kind, value in (("note", each.note), (name_of("edit", each.axis), each.edit)):
            if value:
                told.setdefault(kind, {})[each.annotator] = value
    for name, by_person in told.items():
        row[f"{name}.responses"] = list(by_person.values())
        row[f"{name}.responses.users"] = list(by_person)
        row[f"{name}.responses.status"] = ["submitted"] * len(by_person)
    return [row]


# --- reading ----------------------------------------------------------------------------------------------------------

Response = tuple[str, Any, str, tuple[str, ...]]
"""Person, value, status, traps."""


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    if "fields" not in row:
        return _said(row, row, _flat(row))
    if not isinstance(row["fields"], Mapping):
        raise InputError("fields is not an object")
    meta = row.get("metadata") or {}
    if not isinstance(meta, Mapping):
        raise InputError("metadata is not an object")
    return _said({**meta, "id": row.get("id")}, row["fields"], _nested(row))


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    if "fields" in row:
        return (
            "a nested Argilla export: it has no status for each response, so discarded votes look valid; "
            "export flattened records instead",
        )
    return ()


def _flat(row: Mapping[str, Any]) -> dict[str, list[Response]]:
    """Responses by question."""
    found: dict[str, list[Response]] = {}
    for column in row:
        name = str(column).removesuffix(".responses")
        if name == column:
            continue
        values, users = listed(row[column], column), listed(row.get(f"{column}.users"), f"{column}.users")
        states = listed(row.get(f"{column}.status"), f"{column}.status")
        if len(users) != len(values):
            raise InputError(f"{column} and {column}.users differ in length")
        traps = () if len(states) == len(values) else ("status_unknown",)
        known = states if not traps else ["submitted"] * len(values)
        found[name] = [
            (_user(user), value, STATUS.get(str(state), "discarded"), traps)
            for value, user, state in zip(values, users, known, strict=True)
        ]
    return found


def _nested(row: Mapping[str, Any]) -> dict[str, list[Response]]:
    responses = row.get("responses") or {}
    if not isinstance(responses, Mapping):
        raise InputError("responses is not an object of questions")
    found: dict[str, list[Response]] = {}
    for name, given in responses.items():
        for each in listed(given, f"the responses to {name}"):
            if not isinstance(each, Mapping):
                raise InputError("a response is not an object")
            status = STATUS.get(str(each.get("status", "submitted")), "discarded")
            traps = () if "status" in each else ("status_unknown",)
            found.setdefault(str(name), []).append((_user(each.get("user_id")), each.get("value"), status, traps))
    return found


def _user(value: Any) -> str:
    found = as_text(value, "a response's user")
    if not found.strip():
        raise InputError("a response names no user")
    return found


def _said(ids: Mapping[str, Any], texts: Mapping[str, Any], found: Mapping[str, Sequence[Response]]) -> list[Said]:
    """A verdict a person and axis; responses of another status are another sitting."""
    sittings: dict[tuple[str, str], tuple[Heard, list[str]]] = {}
    for name, responses in found.items():
        for who, value, status, traps in responses:
            heard, met = sittings.setdefault((who, status), (Heard(), []))
            met += traps
            told = value["value"] if isinstance(value, Mapping) and "value" in value else value
            if named(name).kind == "verdict" and type(told) is int and 1 <= told <= 7:
                heard.hear(name_of("strength", named(name).axis), told)  # a rating question of 1 to 7
            elif named(name).kind == "verdict" and isinstance(told, list):
                heard.rank(name, _ranked(told))
            elif told is not None:
                heard.hear(name, told)
    return [
        Said(
            pair=first_text(ids, "pair_id", "metadata.pair_id", "id"),
            verdict=verdict,
            annotator=who,
            left=answer(texts, "answer1"),
            right=answer(texts, "answer2"),
            prompt=answer(texts, "prompt"),
            strength=strength,
            order=order(ids, "order", "metadata.order"),
            axis=axis,
            status=status,
            edit=edit,
            note=heard.note,
            traps=(*dict.fromkeys(met), *(["unknown_result"] if heard.unknown else [])),
        )
        for (who, status), (heard, met) in sittings.items()
        for axis, (verdict, strength, edit) in heard.told().items()
    ]


def _ranked(told: Sequence[Any]) -> list[Any]:
    """Values of a ranking question, best first; [] where two share a rank or one has none."""
    ranks = [(each.get("rank"), each.get("value")) if isinstance(each, Mapping) else (None, None) for each in told]
    numbers = [rank for rank, _ in ranks]
    if any(type(rank) is not int for rank in numbers) or len(set(numbers)) < len(numbers):
        return []
    return [value for _, value in sorted(ranks, key=lambda pair: int(pair[0] or 0))]
