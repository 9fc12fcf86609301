"""Label Studio: tasks to import there, and its exports JSON, JSON_MIN and CSV.

Tasks carry `pair_id`, since JSON_MIN and CSV replace a task's own `id` by the annotation's. Predictions name `to_name`
as one of the two compared texts, which the SDK's validation asks for; on import the control's own name, `answer1` and
`answer1,answer2` are taken alike. What a control asks is told by its name (`from_name`): `winner`, or `comparison`, is
the overall verdict, `winner_harmless` that on the axis harmless. An annotation with an empty result is an abstention, a
cancelled one was skipped. JSON_MIN leaves cancelled annotations out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from cai.errors import InputError
from cai.labels.formats._heard import Heard
from cai.labels.formats._named import SIDES, name_of, named
from cai.labels.items import Item
from cai.labels.said import Said, answer, as_text, first_text, listed, order, seconds_of, text, when
from cai.labels.shown import prompt_text, sides

NAME = "label_studio"
DESCRIPTION = "Label Studio: tasks as JSON; reads JSON, JSON_MIN and CSV exports (Pairwise, Choices, Ranker, Rating)."
SUFFIX = "json"
CARRIES = frozenset({"axis", "strength", "seconds", "note", "edit", "ts", "both_bad", "abstain", "order"})


def config(axes: Sequence[str] = ("",)) -> str:
    """A labelling interface for these tasks, with a question an axis."""
    lines = ["<View>", '  <Text name="prompt" value="$prompt"/>']
    if "" in axes:
        lines.append('  <Pairwise name="comparison" toName="answer1,answer2"/>')
    lines += [f'  <Text name="{name}" value="${name}"/>' for name in ("answer1", "answer2")]
    for axis in axes:
        words = "".join(f'<Choice value="{word}"/>' for word in ("left", "right", "tie", "both_bad", "abstain"))
        lines.append(f'  <Choices name={quoteattr(name_of("winner", axis))} toName="prompt">{words}</Choices>')
        lines.append(f'  <Rating name={quoteattr(name_of("strength", axis))} toName="prompt" maxRating="7"/>')
        lines.append(f'  <TextArea name={quoteattr(name_of("edit", axis))} toName="prompt"/>')
    lines += ['  <TextArea name="note" toName="prompt"/>', "</View>"]
    return "\n".join(lines) + "\n"


CONFIG = config()
"""The interface for one overall question."""

_IDS = ("id", "pair_id", "order", "annotator", "annotation_id", "completed_by")
_DATA = (*_IDS, "prompt", "answer1", "answer2", "created_at", "updated_at", "lead_time", "source")
"""Columns of a flat export that are no controls."""

CONTROLS = ("winner", "comparison", "verdict", "preference", "strength", "rating_")
"""How names of our own controls begin: what stands there must be an answer. Any other column may be of the data."""


def task(item: Item, order: str) -> dict[str, Any]:
    left, right = sides(item, order)
    data = {
        "pair_id": item.comparison_id,
        "order": order,
        "prompt": prompt_text(item.messages),
        "answer1": left,
        "answer2": right,
    }
    return {"data": data}


def guess(row: dict[str, Any], order: str, judged: Mapping[str, float], model: str) -> dict[str, Any]:
    """A task with what the judge says of it, by axis, as predictions."""
    results, scores = [], []
    for axis, p in sorted(judged.items()):
        left = p if order == "ab" else 1 - p
        verdict = "tie" if left == 0.5 else "left" if left > 0.5 else "right"
        results.append(_choice(axis, verdict))
        scores.append(max(left, 1 - left))
    if not results:
        return row
    return row | {"predictions": [{"model_version": model, "score": round(min(scores), 4), "result": results}]}


def labelled(item: Item, order: str, said: Sequence[Said]) -> list[dict[str, Any]]:
    """One task with an annotation for each sitting of a person."""
    row = task(item, order)
    row["data"]["order"] = said[0].order
    sittings: dict[tuple[Any, ...], list[Said]] = {}
    for each in said:
        sittings.setdefault((each.annotator, each.ts, each.seconds, each.note), []).append(each)
    row["annotations"] = [
        {
            "id": number,
            "completed_by": {"email": who},
            "was_cancelled": False,
            "ground_truth": False,
            "lead_time": seconds,
            "created_at": ts,
            "result": [*(part for each in mine for part in _parts(each)), *_text("note", note)],
        }
        for number, ((who, ts, seconds, note), mine) in enumerate(sittings.items(), start=1)
    ]
    return [row]


def _parts(said: Said) -> list[dict[str, Any]]:
    found = [_choice(said.axis, said.verdict)]
    if said.strength is not None:
        name = {"from_name": name_of("strength", said.axis), "to_name": "prompt", "type": "rating"}
        found.append(name | {"value": {"rating": said.strength}})
    return found + _text(name_of("edit", said.axis), said.edit)


def _choice(axis: str, verdict: str) -> dict[str, Any]:
    name = {"from_name": name_of("winner", axis), "to_name": "prompt", "type": "choices"}
    return name | {"value": {"choices": [verdict]}}


def _text(name: str, value: str) -> list[dict[str, Any]]:
    kind = {"from_name": name, "to_name": "prompt", "type": "textarea"}
    return [kind | {"value": {"text": [value]}}] if value else []


# --- reading ----------------------------------------------------------------------------------------------------------


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    """Every annotation of a task, or the one of a flat row."""
    if "data" not in row:
        return _flat(row)
    if not isinstance(row["data"], Mapping):
        raise InputError("data is not an object")
    found = listed(row.get("annotations", row.get("completions")), "annotations")
    return [said for each in found for said in _annotation(row["data"], each)]


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    if "data" in row:
        return ()
    return (
        "a flat export (JSON_MIN or CSV): cancelled annotations are not in it, and `id` is the annotation's; "
        "pairs are found by pair_id",
    )


def _annotation(data: Mapping[str, Any], given: Any) -> list[Said]:
    if not isinstance(given, Mapping):
        raise InputError("an annotation is not an object")
    heard = Heard()
    for each in listed(given.get("result"), "an annotation's result"):
        value = each.get("value") if isinstance(each, Mapping) else None
        if not isinstance(value, Mapping):
            raise InputError("a result has no value")
        name, about = as_text(each.get("from_name"), "from_name"), as_text(each.get("to_name"), "to_name")
        _hear(heard, name, value, SIDES.get(about, ""))
    extra = {"ground_truth": True} if given.get("ground_truth") is True else {}
    return _said(
        data,
        heard,
        annotator=_who(given.get("completed_by")),
        seconds=seconds_of(given.get("lead_time")),
        ts=when(given.get("updated_at") or given.get("created_at")),
        status="skipped" if given.get("was_cancelled") else "submitted",
        key=as_text(given.get("id"), "an annotation's id"),
        extra=extra,
    )


def _hear(heard: Heard, name: str, value: Mapping[str, Any], side: str = "") -> None:
    """One result, or one cell of a flat export."""
    if "selected" in value:  # of Pairwise; its to_name is one of the answers, which says nothing
        heard.hear(name if named(name).kind == "verdict" else name_of("winner", name), value["selected"])
    elif "choices" in value:
        chosen = value["choices"]
        one = chosen[0] if isinstance(chosen, list) and len(chosen) == 1 else chosen
        heard.hear(name or "winner", one)
    elif "rating" in value:
        heard.hear(name, value["rating"], side=side)
    elif "ranker" in value or "rank" in value:
        ranked = value.get("ranker", value.get("rank"))
        lists = list(ranked.values()) if isinstance(ranked, Mapping) else [ranked]
        heard.rank(name, lists[0] if len(lists) == 1 and isinstance(lists[0], list) else [])
    elif "text" in value:
        heard.hear(name if named(name).kind in ("note", "edit") else "note", value["text"])
    else:
        heard.unknown.append(", ".join(sorted(map(str, value))) or "an empty value")


def _flat(row: Mapping[str, Any]) -> Sequence[Said]:
    heard = Heard()
    for name, cell in row.items():
        if name in _DATA or cell is None or cell == "":
            continue
        value = _cell(cell)
        kind = named(name).kind
        if isinstance(value, Mapping):
            _hear(heard, name, value)
        elif isinstance(value, list) and kind == "verdict":
            heard.rank(name, value)
        elif kind in ("note", "edit") or name.lower().startswith(CONTROLS):
            heard.hear(name, value)
        elif isinstance(value, str):
            before = len(heard.unknown)
            heard.hear(name, value)
            del heard.unknown[before:]  # any other column of the data
    return _said(
        row,
        heard,
        annotator=_who(row.get("annotator") or row.get("completed_by")),
        seconds=seconds_of(row.get("lead_time")),
        ts=when(row.get("updated_at") or row.get("created_at")),
        key=first_text(row, "annotation_id", "id"),
        traps=() if row.get("pair_id") else ("id_overwritten",),
    )


def _cell(cell: Any) -> Any:
    """A cell of a flat export: what is not a plain text is JSON, in a CSV file as text."""
    if isinstance(cell, str) and cell.lstrip().startswith(("[", "{")):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return cell  # a text that happens to begin so
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def _said(data: Mapping[str, Any], heard: Heard, **told: Any) -> list[Said]:
    traps = told.pop("traps", ())
    said = heard.told()
    return [
        Said(
            pair=text(data, "pair_id", needed=False),
            left=answer(data, "answer1"),
            right=answer(data, "answer2"),
            prompt=answer(data, "prompt"),
            order=order(data),
            axis=axis,
            verdict=verdict,
            strength=strength,
            edit=edit,
            note=heard.note,
            traps=(*traps, *(["unknown_result"] if heard.unknown else [])),
            **told,
        )
        for axis, (verdict, strength, edit) in said.items()
    ]


def _who(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("id")
    found = as_text(value, "completed_by")
    if not found.strip():
        raise InputError("nobody is named as annotator (completed_by)")
    return found
