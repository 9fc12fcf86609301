"""TRL: conversational, with an explicit prompt; beside it all that we know of the label. The format of our own data.

Read by DPOTrainer, RewardTrainer, CPO, ORPO and KTO (which unpairs it), and by OpenRLHF with `prompt` as prompt key.

RewardTrainer and OpenRLHF's margin loss take `margin` for the margin of Llama 2 (arXiv 2307.09288, eq. 2): the loss is
-log sigmoid(r_chosen - r_rejected - margin). Remove the column where the plain loss is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.preferences.base import (
    Column,
    Row,
    answer_of,
    known_fields,
    labelled,
    probability,
    prompt_of,
    reply,
    rows_of,
)
from cai.records import Preference
from cai.stages.export import Split

NAME = "trl"
DESCRIPTION = "TRL: prompt, chosen and rejected as lists of messages, with p, margin, weight and all ids."
LOST: tuple[str, ...] = ()
ROWS = 1
PARQUET = True
COLUMNS = (
    Column("prompt", "messages", "The conversation to answer."),
    Column("chosen", "messages", "The better answer, one message."),
    Column("rejected", "messages", "The other."),
    Column("id", "text", "Id of the preference."),
    Column("prompt_id", "text", "Id of the prompt; several rows can share it, always in the same split."),
    Column("group_id", "text", "Id of the group of answers to the prompt that the pair is from."),
    Column("comparison_id", "text", "Id of the pair; rows of several axes share it."),
    Column("chosen_id", "text", "Id of the better answer."),
    Column("rejected_id", "text", "Id of the other."),
    Column("p", "float", "Soft label: the probability that `chosen` is better, 0.5 to 1; a tie counts half."),
    Column("p_tie", "float", "The part of it that is said to be a tie."),
    Column("margin", "float", "2 p - 1. TRL's RewardTrainer subtracts it; remove the column for the plain loss."),
    Column("agreement", "float", "Share of the questions whose own label is on this side."),
    Column("flipped", "float", "Share of the questions whose verdict changed with the order of the answers."),
    Column("weight", "float", "1 / (pairs of the group), so that every group counts alike."),
    Column("axis", "text", "What is measured; empty for the judge's own question."),
    Column("principle_ids", "texts", "The principles that were asked."),
    Column("votes", "texts", "Ids of the votes."),
    Column("source", "text", "`ai`, `human`, or how the two were merged."),
    Column("status", "text", "`ok` or `tie`."),
    Column("tags", "texts", "Labels of the prompt."),
    Column("split", "text", "`train` or `test`."),
)
OWN = tuple(name for name, _, _ in COLUMNS if name not in ("prompt", "chosen", "rejected", "split"))
"""The columns that are fields of a preference under the same name."""


def fits(row: Mapping[str, Any]) -> bool:
    prompt, chosen = row.get("prompt"), row.get("chosen")
    if "rejected" not in row or "subset" in row or "schema" in row:
        return False
    return (isinstance(prompt, list) and isinstance(chosen, list)) or (
        isinstance(prompt, str) and isinstance(chosen, str)
    )


def write_rows(preference: Preference, split: Split) -> tuple[Row, ...]:
    probability(preference)
    row = preference.row()
    return (
        {
            "prompt": rows_of(preference.messages),
            "chosen": reply(preference.chosen),
            "rejected": reply(preference.rejected),
            **{name: row[name] for name in OWN},
            "split": split,
        },
    )


def read_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference:
    """Ours or another's; the standard form, three texts, is one user turn and two answers."""
    (row,) = rows
    known = known_fields(row, OWN, where)
    messages = prompt_of(row.get("prompt"), "prompt", where)
    chosen, rejected = (answer_of(row.get(name), name, where) for name in ("chosen", "rejected"))
    return labelled(messages, chosen, rejected, where=where, **known)
