"""OpenRLHF: `chosen` and `rejected` as whole conversations, with a `margin`; for `--apply_chat_template`.

The keys are OpenRLHF's defaults (`--chosen_key`, `--rejected_key`, no prompt key); others are a matter of renaming
columns as they are written. With a prompt key it reads the `trl` format. `margin` counts only with `--margin_loss`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.preferences.base import (
    Column,
    Row,
    conversations,
    known_fields,
    labelled,
    lost,
    reply,
    rows_of,
    single,
)
from cai.records import Preference
from cai.stages.export import Split

NAME = "openrlhf"
DESCRIPTION = "OpenRLHF: whole conversations in chosen and rejected, with a margin."
OWN = ("id", "margin")
LOST = lost("messages", "chosen", "rejected", "prompt_id", "p", "status", *OWN)
ROWS = 1
PARQUET = False
COLUMNS = (
    Column("chosen", "messages", "The conversation with the better answer."),
    Column("rejected", "messages", "The conversation with the other."),
    Column("margin", "float", "2 p - 1, of the probability p that `chosen` is better."),
    Column("id", "text", "Id of the preference."),
)


def fits(row: Mapping[str, Any]) -> bool:
    if not isinstance(row.get("chosen"), list) or not isinstance(row.get("rejected"), list):
        return False
    return not {"prompt", "messages", "score_chosen", "schema"} & row.keys()


def write_rows(preference: Preference, split: Split) -> tuple[Row, ...]:
    single(preference, NAME)
    prompt = rows_of(preference.messages)
    return (
        {
            "chosen": prompt + reply(preference.chosen),
            "rejected": prompt + reply(preference.rejected),
            "margin": preference.margin,
            "id": preference.id,
        },
    )


def read_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference:
    """Ours or another's; without a margin, or with 0, the label is a hard one."""
    (row,) = rows
    return labelled(*conversations(row, where), where=where, **known_fields(row, OWN, where))
