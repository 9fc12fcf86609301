"""HH-RLHF (arXiv 2204.05862): `chosen` and `rejected` as transcripts, all turns kept; people's hard labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.preferences.base import CannotCarry, Column, Row, apart, labelled, lost, single, text_of
from cai.prompts import transcript
from cai.records import Message, Messages, Preference
from cai.stages.export import Split

NAME = "hh"
DESCRIPTION = "HH-RLHF: chosen and rejected as transcripts of Human and Assistant."
LOST = lost("messages", "chosen", "rejected", "prompt_id", "status")
ROWS = 1
PARQUET = False
COLUMNS = (
    Column("chosen", "text", "The transcript with the better answer."),
    Column("rejected", "text", "The transcript with the other."),
)
_NAMES = {"user": "Human", "assistant": "Assistant"}


def fits(row: Mapping[str, Any]) -> bool:
    texts = isinstance(row.get("chosen"), str) and isinstance(row.get("rejected"), str)
    return texts and not {"prompt", "schema"} & row.keys()


def write_rows(preference: Preference, split: Split) -> tuple[Row, ...]:
    """Refused, rather than changed: a system turn, a speaker's name inside a turn, white space around one."""
    single(preference, NAME)
    return (
        {
            "chosen": _transcript((*preference.messages, Message("assistant", preference.chosen)), preference.id),
            "rejected": _transcript((*preference.messages, Message("assistant", preference.rejected)), preference.id),
        },
    )


def _transcript(messages: Messages, key: str) -> str:
    where = f"preference {key}"
    if any(turn.role not in _NAMES for turn in messages):
        raise CannotCarry("system_turn", f"{NAME} knows no system turns", where=where)
    text = "".join(f"\n\n{_NAMES[turn.role]}: {turn.content}" for turn in messages)
    if transcript.parse(text) != messages:
        raise CannotCarry("not_a_transcript", "its turns would not be read back as they are", where=where)
    return text


def read_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference:
    """The pair; a few in the original differ earlier than in the last turn, or not at all: these are errors."""
    (row,) = rows
    try:
        chosen, rejected = (transcript.parse(text_of(row, name, where)) for name in ("chosen", "rejected"))
    except InputError as error:
        raise InputError(error.what, where=where) from error
    return labelled(*apart(chosen, rejected, where), where=where, source="human")
