"""UltraFeedback binarized, as the alignment handbook and the preference splits of Hugging Face's own CAI data have it.

`chosen` and `rejected` are whole conversations; `prompt` is the first user turn, and only for show. Scores are p and
1 - p here; in the original they are 1 to 10, and say no more than which answer is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cai.errors import InputError
from cai.preferences.base import (
    Column,
    Row,
    conversations,
    known_fields,
    labelled,
    lost,
    probability,
    reply,
    rows_of,
)
from cai.records import Preference
from cai.stages.export import Split

NAME = "ultrafeedback"
DESCRIPTION = "UltraFeedback binarized: whole conversations in chosen and rejected, with scores."
OWN = ("id", "prompt_id")
LOST = lost("messages", "chosen", "rejected", "p", "margin", *OWN)
ROWS = 1
PARQUET = False
COLUMNS = (
    Column("prompt", "text", "The first user turn; the whole prompt is in `chosen`."),
    Column("prompt_id", "text", "Id of the prompt."),
    Column("chosen", "messages", "The conversation with the better answer."),
    Column("rejected", "messages", "The conversation with the other."),
    Column("messages", "messages", "The same as `chosen`, for supervised training."),
    Column("score_chosen", "float", "p: the probability that `chosen` is better."),
    Column("score_rejected", "float", "1 - p."),
    Column("id", "text", "Id of the preference."),
)


def fits(row: Mapping[str, Any]) -> bool:
    if not isinstance(row.get("chosen"), list) or "rejected" not in row or isinstance(row.get("prompt"), list):
        return False
    return isinstance(row.get("prompt"), str) or "messages" in row or "score_chosen" in row


def write_rows(preference: Preference, split: Split) -> tuple[Row, ...]:
    p = probability(preference)
    prompt = rows_of(preference.messages)
    return (
        {
            "prompt": next(turn["content"] for turn in prompt if turn["role"] == "user"),
            "prompt_id": preference.prompt_id,
            "chosen": prompt + reply(preference.chosen),
            "rejected": prompt + reply(preference.rejected),
            "messages": prompt + reply(preference.chosen),
            "score_chosen": p,
            "score_rejected": 1 - p,
            "id": preference.id,
        },
    )


def read_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> Preference:
    """Scores that are a probability and its complement tell p; any others only which answer is better, or a tie."""
    (row,) = rows
    known = known_fields(row, OWN, where)
    scores = [row.get(name) for name in ("score_chosen", "score_rejected")]
    if any(score is not None for score in scores):
        known["p"] = _p(scores, where)
    return labelled(*conversations(row, where), where=where, **known)


def _p(scores: Sequence[Any], where: str) -> float:
    if not all(isinstance(score, int | float) and not isinstance(score, bool) for score in scores):
        raise InputError("score_chosen and score_rejected must be numbers", where=where)
    chosen, rejected = map(float, scores)
    if not chosen >= rejected:
        raise InputError(f"score_chosen {chosen} is below score_rejected {rejected}", where=where)
    if chosen <= 1 and abs(chosen + rejected - 1) < 1e-9:
        return chosen
    return 0.5 if chosen == rejected else 1.0
