"""NeMo-RL's rank format: `context` and two ranked `completions`, for its DPO and reward model recipes.

No `task_name`: its `PreferenceDataset` adds that column to the file's and fails where there is one. Ties are refused
by its preprocessor (equal ranks), and so here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.preferences.base import Column, Row, answer_of, known_fields, labelled, lost, prompt_of, reply, rows_of, single
from cai.records import Preference
from cai.stages.export import Split

NAME = "nemo_rl"
DESCRIPTION = "NeMo-RL: context, and completions with their ranks."
OWN = ("id",)
LOST = lost("messages", "chosen", "rejected", "prompt_id", "status", *OWN)
ROWS = 1
PARQUET = False
COLUMNS = (
    Column("context", "messages", "The conversation to answer."),
    Column("completions", "completions", "Two answers, each with its `rank`; 0 is the better."),
    Column("id", "text", "Id of the preference."),
)


def fits(row: Mapping[str, Any]) -> bool:
    return {"context", "completions"} <= row.keys()


def write_rows(preference: Preference, split: Split) -> tuple[Row, ...]:
    single(preference, NAME)
    texts = (preference.chosen, preference.rejected)
    completions = [{"rank": rank, "completion": reply(text)} for rank, text in enumerate(texts)]
    return ({"context": rows_of(preference.messages), "completions": completions, "id": preference.id},)


def read_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference:
    (row,) = rows
    given = row.get("completions")
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(item, Mapping) for item in given):
        raise InputError("completions must be a list of two", where=where)
    ranks = [item.get("rank") for item in given]
    if not all(isinstance(rank, int) and not isinstance(rank, bool) for rank in ranks) or ranks[0] == ranks[1]:
        raise InputError("the ranks of the two completions must be different whole numbers", where=where)
    chosen, rejected = (
        answer_of(item.get("completion"), "completion", where) for item in sorted(given, key=lambda item: item["rank"])
    )
    messages = prompt_of(row.get("context"), "context", where)
    return labelled(messages, chosen, rejected, where=where, **known_fields(row, OWN, where))
