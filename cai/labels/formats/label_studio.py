"""Label Studio: tasks to import there, and its exports JSON, JSON_MIN and CSV.

Tasks carry `pair_id`, since JSON_MIN and CSV replace a task's own `id` by the annotation's. Predictions name
`to_name` as
one of the two compared texts, which the SDK's validation asks for; on import the control's own name, `answer1` and
`answer1,answer2` are taken alike. An annotation with an empty result is an abstention, a cancelled one was skipped.
JSON_MIN leaves cancelled annotations out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.labels.items import Item
from cai.labels.said import Said, from_strength, seconds_of, word
from cai.labels.shown import prompt_text, sides

NAME = "label_studio"
DESCRIPTION = "Label Studio: tasks as JSON; reads JSON, JSON_MIN and CSV exports (Pairwise, Choices, Rating)."
SUFFIX = "json"
CONFIG = """<View>
  <Text name="prompt" value="$prompt"/>
  <Pairwise name="comparison" toName="answer1,answer2"/>
  <Text name="answer1" value="$answer1"/>
  <Text name="answer2" value="$answer2"/>
  <Choices name="winner" toName="prompt">
    <Choice value="left"/><Choice value="right"/><Choice value="tie"/><Choice value="both_bad"/>
  </Choices>
  <TextArea name="note" toName="prompt"/>
</View>
"""
"""A labelling interface for these tasks."""

VERDICTS = ("winner", "comparison", "verdict", "preference")


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


def read(row: Mapping[str, Any]) -> Sequence[Said]:
    """Every annotation of a task, or the one of a flat row."""
    if isinstance(row.get("data"), Mapping):
        found = row.get("annotations", row.get("completions"))
        if found is None:
            return ()
        if not isinstance(found, list):
            raise InputError("annotations is not a list")
        return [_annotation(row["data"], each) for each in found]
    return _flat(row)


def notes(row: Mapping[str, Any]) -> Sequence[str]:
    if isinstance(row.get("data"), Mapping):
        return ()
    return (
        "a flat export (JSON_MIN or CSV): cancelled annotations are not in it, and `id` is the annotation's; "
        "pairs are found by pair_id",
    )


def _annotation(data: Mapping[str, Any], given: Any) -> Said:
    if not isinstance(given, Mapping):
        raise InputError("an annotation is not an object")
    results = given.get("result") or []
    if not isinstance(results, list):
        raise InputError("an annotation's result is not a list")
    verdict, note, strength = "", "", None
    for each in results:
        value = each.get("value") if isinstance(each, Mapping) else None
        if not isinstance(value, Mapping):
            raise InputError("a result has no value")
        if "selected" in value:
            verdict = verdict or word(value["selected"])
        elif "choices" in value:
            verdict = word((value["choices"] or [""])[0])
        elif "rating" in value and strength is None:
            strength = int(value["rating"])
        elif "text" in value:
            told = value["text"]
            note = "\n".join(map(str, told)) if isinstance(told, list) else str(told)
    status = "skipped" if given.get("was_cancelled") else "submitted"
    return _said(
        data,
        verdict=verdict or (from_strength(strength) if strength else "abstain"),
        annotator=_who(given.get("completed_by")),
        note=note,
        strength=strength if strength and 1 <= strength <= 7 else None,
        seconds=seconds_of(given.get("lead_time")),
        ts=str(given.get("updated_at") or given.get("created_at") or ""),
        status=status,
        key=str(given.get("id") or ""),
        gold=bool(given.get("ground_truth")),
    )


def _flat(row: Mapping[str, Any]) -> Sequence[Said]:
    told = next((row[name] for name in VERDICTS if row.get(name) not in (None, "")), None)
    if isinstance(told, str) and told.strip().startswith(("[", "{")):
        try:
            told = json.loads(told)  # the Pairwise cell of a CSV export
        except ValueError as error:
            raise InputError("the Pairwise cell is not JSON") from error
    if isinstance(told, list):
        told = told[0] if told else None
    if isinstance(told, Mapping):
        told = told.get("selected") or (told.get("choices") or [None])[0]
    traps = () if row.get("pair_id") else ("id_overwritten",)
    return (
        _said(
            row,
            verdict=word(told),
            annotator=_who(row.get("annotator") or row.get("completed_by")),
            note=str(row.get("note") or ""),
            seconds=seconds_of(row.get("lead_time")),
            ts=str(row.get("updated_at") or row.get("created_at") or ""),
            key=str(row.get("annotation_id") or row.get("id") or ""),
            traps=traps,
        ),
    )


def _said(data: Mapping[str, Any], **told: Any) -> Said:
    order = str(data.get("order") or "")
    return Said(
        pair=str(data.get("pair_id") or ""),
        left=data.get("answer1"),
        right=data.get("answer2"),
        prompt=data.get("prompt"),
        order=order if order in ("ab", "ba") else "",
        **told,
    )


def _who(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("id")
    if value in (None, ""):
        raise InputError("nobody is named as annotator (completed_by)")
    return str(value)
