"""RewardBench: a reward model's test set, `prompt`, `chosen`, `rejected`, `subset`, `id`; accuracy is told by subset.

`prompt` is a list of turns, the form in which its loader takes several turns; one of a single text is read too. The
loader gives the turns to user and assistant by turns whatever their roles, so a prompt with a system turn, or two
turns of one speaker in a row, cannot be carried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.preferences.base import (
    CannotCarry,
    Column,
    Row,
    answer_of,
    known_fields,
    labelled,
    lost,
    prompt_of,
    rows_of,
    single,
)
from cai.records import Preference
from cai.stages.export import Split

NAME = "rewardbench"
DESCRIPTION = "RewardBench: prompt, chosen, rejected, subset (the axis), id."
LOST = lost("id", "messages", "chosen", "rejected", "prompt_id", "axis", "status")
ROWS = 1
PARQUET = False
COLUMNS = (
    Column("prompt", "messages", "The conversation to answer."),
    Column("chosen", "text", "The better answer."),
    Column("rejected", "text", "The other."),
    Column("subset", "text", "The axis: what is measured."),
    Column("id", "text", "Id of the preference."),
)


def fits(row: Mapping[str, Any]) -> bool:
    if not isinstance(row.get("chosen"), str) or not isinstance(row.get("rejected"), str) or "schema" in row:
        return False
    return isinstance(row.get("prompt"), list) or ("prompt" in row and "subset" in row)


def write_rows(preference: Preference, split: Split) -> tuple[Row, ...]:
    single(preference, NAME)
    if any(turn.role != ("user", "assistant")[index % 2] for index, turn in enumerate(preference.messages)):
        what = f"{NAME} knows only turns of user and assistant, one after the other"
        raise CannotCarry("other_turns", what, where=f"preference {preference.id}")
    return (
        {
            "prompt": rows_of(preference.messages),
            "chosen": preference.chosen,
            "rejected": preference.rejected,
            "subset": preference.axis,
            "id": preference.id,
        },
    )


def read_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference:
    """Ours or another's; RewardBench's own ids are numbers."""
    (row,) = rows
    known = known_fields({"axis": row.get("subset")}, ("axis",), where)
    if row.get("id") is not None:
        known["id"] = str(row["id"])
    messages = prompt_of(row.get("prompt"), "prompt", where)
    chosen, rejected = (answer_of(row.get(name), name, where) for name in ("chosen", "rejected"))
    return labelled(messages, chosen, rejected, where=where, **known)
