"""What the formats share: checked reading of fields, and a preference from a labelled pair."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cai.errors import InputError
from cai.prompts import transcript
from cai.records import (
    PLACES,
    Candidate,
    Group,
    Messages,
    Preference,
    Prompt,
    content_hash,
    margin_of,
    messages_from,
    verdict_of,
)

Row = dict[str, Any]


class Column(NamedTuple):
    """Name, type (`text`, `int`, `float`, `bool`, `texts`, `messages`, `completions`) and meaning of a column."""

    name: str
    kind: str
    meaning: str


class CannotCarry(InputError):
    """A preference that a format has no way to say; `reason` is a short fixed word, for counting."""

    def __init__(self, reason: str, what: str, *, where: str = "") -> None:
        super().__init__(what, where=where, mend="take another format, or leave such preferences out")
        self.reason = reason


FIELDS: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Preference))

_KINDS: Mapping[str, str] = {
    **dict.fromkeys(FIELDS, "text"),
    **dict.fromkeys(("p", "p_tie", "margin", "agreement", "flipped", "weight"), "number"),
    **dict.fromkeys(("principle_ids", "votes", "tags"), "texts"),
}

_IDS = ("id", "prompt_id")
"""Those that rows of others have too."""


def lost(*carried: str) -> tuple[str, ...]:
    """The fields of a preference that are not among those `carried`."""
    unknown = set(carried) - set(FIELDS)
    if unknown:
        raise ValueError(f"no such fields: {sorted(unknown)}")
    return tuple(name for name in FIELDS if name not in carried)


def single(preference: Preference, name: str) -> float:
    """The probability of a preference that is not a tie, for formats that only know a better and a worse answer.

    Raises:
        CannotCarry: it is a tie.
    """
    p = probability(preference)
    if preference.status == "tie" or p == 0.5:
        raise CannotCarry("tie", f"{name} knows no ties", where=f"preference {preference.id}")
    return p


def probability(preference: Preference) -> float:
    """Its soft label.

    Raises:
        CannotCarry: it has none.
    """
    if preference.p is None:
        raise CannotCarry("abstain", "it has no label", where=f"preference {preference.id}")
    return preference.p


def rows_of(messages: Messages) -> list[dict[str, str]]:
    return [turn.row() for turn in messages]


def reply(text: str) -> list[dict[str, str]]:
    """An answer as a list of one message."""
    return [{"role": "assistant", "content": text}]


# --- reading ----------------------------------------------------------------------------------------------------------


def text_of(row: Mapping[str, Any], name: str, where: str) -> str:
    """A text that must be there."""
    if not isinstance(row.get(name), str):
        raise InputError(f"{name} must be a text", where=where)
    return str(row[name])


def answer_of(value: Any, name: str, where: str) -> str:
    """The text of an answer that stands alone: a text, or a list of one assistant message."""
    if isinstance(value, str):
        return value
    turns = messages_from(value, where=f"{where}: {name}" if where else name)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise InputError(f"{name} must be one message of the assistant", where=where)
    return turns[0].content


def prompt_of(value: Any, name: str, where: str) -> Messages:
    """A prompt: messages, or a text, which is one user turn or a transcript that a human begins."""
    if isinstance(value, str):
        return transcript.asked(value)
    return messages_from(value, where=f"{where}: {name}" if where else name)


def conversations(row: Mapping[str, Any], where: str) -> tuple[Messages, str, str]:
    """Prompt and answers of a row whose `chosen` and `rejected` are whole conversations that differ at the end."""
    return apart(
        messages_from(row.get("chosen"), where=f"{where}: chosen"),
        messages_from(row.get("rejected"), where=f"{where}: rejected"),
        where,
    )


def apart(chosen: Messages, rejected: Messages, where: str) -> tuple[Messages, str, str]:
    """The turns that two conversations share, and their last ones.

    Raises:
        InputError: they differ before their last turn, or it is not the assistant's.
    """
    if chosen[:-1] != rejected[:-1]:
        raise InputError("chosen and rejected differ before their last turn", where=where)
    if not chosen[-1].role == rejected[-1].role == "assistant":
        raise InputError("chosen and rejected must end with the assistant's turn", where=where)
    return chosen[:-1], chosen[-1].content, rejected[-1].content


def known_fields(row: Mapping[str, Any], names: Sequence[str], where: str) -> dict[str, Any]:
    """Those fields of a preference that a row has under the same name, checked; null is as good as missing.

    Others number their rows: such ids are read as texts. Columns of texts that are no ids have names that many data
    sets use for something else (`source`, `tags`); they are ours only beside a `comparison_id`, which none of them has.
    """
    found: dict[str, Any] = {}
    ours = "comparison_id" not in names or isinstance(row.get("comparison_id"), str)
    for name in names:
        value, kind = row.get(name), _KINDS[name]
        if value is None or not (ours or kind == "number" or name in _IDS):
            continue
        if name in _IDS and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if kind == "number":
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{name} must be a number", where=where)
            found[name] = float(value)
        elif kind == "texts":
            if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                raise InputError(f"{name} must be a list of texts", where=where)
            found[name] = tuple(value)
        else:
            found[name] = text_of({name: value}, name, where)
    return found


def labelled(messages: Messages, chosen: str, rejected: str, *, where: str, **known: Any) -> Preference:
    """A preference from a labelled pair. What is not `known` is what a label without votes says: p 1, all agree.

    `group_id` is blank where it is not known: which pairs of a prompt belong together is for the reader to say.
    `margin` alone tells p as 2 p - 1; 0 tells nothing, since that is what a loader puts where there is none.

    Raises:
        InputError: the prompt does not end with a user turn, the answers are the same, p is not in 0.5 to 1, or
            contradicts the margin.
    """
    try:
        prompt = Prompt.make(messages)
    except InputError as error:
        raise InputError(error.what, where=where) from error
    if chosen == rejected:
        raise InputError("chosen and rejected are the same text", where=where)
    given = known.get("margin")
    if "p" not in known:
        if given is not None and not 0 <= given <= 1:
            raise InputError(f"margin {given} is not 2 p - 1 of a probability; remove the column", where=where)
        known["p"] = round((1 + given) / 2, PLACES) if given else 1.0
    p = known["p"]
    if not 0.5 <= p <= 1:
        raise InputError(f"p is {p}; the probability that chosen is better is 0.5 to 1", where=where)
    if given and abs(given - (2 * p - 1)) > 1e-6:
        raise InputError(f"margin {given} contradicts p {p}", where=where)
    pair = [Candidate(content_hash(prompt.id, text), text) for text in sorted((chosen, rejected))]
    group = Group.make(prompt, pair)
    (comparison,) = group.comparisons()
    values: dict[str, Any] = {
        "id": content_hash(comparison.id, known.get("axis", ""), chosen),
        "comparison_id": comparison.id,
        "group_id": "",
        "prompt_id": prompt.id,
        "chosen_id": content_hash(prompt.id, chosen),
        "rejected_id": content_hash(prompt.id, rejected),
        "p_tie": 0.0,
        "agreement": 1.0,
        "flipped": 0.0,
        "weight": 1.0,
        "axis": "",
        "principle_ids": (),
        "votes": (),
        "source": "label",
        "status": verdict_of(p, known.get("p_tie", 0.0)),
        "tags": (),
    }
    values |= known
    values["margin"] = margin_of(p)
    return Preference(messages=messages, chosen=chosen, rejected=rejected, **values)
