"""TRL's unpaired preferences (`prompt`, `completion`, `label`), for KTO: two rows each, the better answer first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.preferences.base import (
    Column,
    Row,
    answer_of,
    known_fields,
    labelled,
    lost,
    prompt_of,
    reply,
    rows_of,
    single,
)
from cai.records import Preference
from cai.stages.export import Split

NAME = "trl_unpaired"
DESCRIPTION = "TRL's unpaired form for KTO: prompt, completion, label; two rows a preference."
OWN = ("id", "prompt_id", "p")
LOST = lost("messages", "chosen", "rejected", "status", "margin", *OWN)
ROWS = 2
PARQUET = False
COLUMNS = (
    Column("prompt", "messages", "The conversation to answer."),
    Column("completion", "messages", "An answer, one message."),
    Column("label", "bool", "Whether it is the better one of its pair."),
    Column("id", "text", "Id of the preference; its two rows share it."),
    Column("prompt_id", "text", "Id of the prompt."),
    Column("p", "float", "Probability that the better answer of the pair is better, 0.5 to 1."),
)


def fits(row: Mapping[str, Any]) -> bool:
    return {"prompt", "completion", "label"} <= row.keys()


def write_rows(preference: Preference, split: Split) -> tuple[Row, ...]:
    p = single(preference, NAME)
    texts = ((preference.chosen, True), (preference.rejected, False))
    return tuple(
        {
            "prompt": rows_of(preference.messages),
            "completion": reply(text),
            "label": label,
            "id": preference.id,
            "prompt_id": preference.prompt_id,
            "p": p,
        }
        for text, label in texts
    )


def read_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference:
    """Two rows in a row that share the prompt (and the id, if they have one), with opposite labels."""
    one, other = rows
    if one.get("prompt") != other.get("prompt") or one.get("id") != other.get("id"):
        raise InputError("has no partner: the next row is of another pair", where=where)
    if not isinstance(one.get("label"), bool) or other.get("label") is not (not one["label"]):
        raise InputError("the labels of a pair must be one true and one false", where=where)
    better, worse = (one, other) if one["label"] else (other, one)
    messages = prompt_of(one.get("prompt"), "prompt", where)
    chosen, rejected = (answer_of(row.get("completion"), "completion", where) for row in (better, worse))
    return labelled(messages, chosen, rejected, where=where, **known_fields(one, OWN, where))
