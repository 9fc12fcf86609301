"""From one decoded row (a JSON value, a CSV record, a Parquet row) to its conversation, whatever keys it uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.prompts import transcript
from cai.prompts.rows import FIELD, LATER_TURNS, ReadOptions, Row, Turns
from cai.records import Message, Messages, Prompt, messages_from

_LONGEST_ID = 200
_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}

KNOWN_KEYS = ("messages", "conversations", "prompt", "turns")
"""Keys that hold a prompt by themselves, the first that a row has wins. Any other is named by `FIELD`."""

INSTRUCTION = "instruction"
"""Of self-instruct, Alpaca, Dolly: what belongs to it stands in one of `INPUTS`, and is put behind it."""
INPUTS = ("input", "context", "instances")


def conversation(value: Any, where: str, options: ReadOptions) -> Row:
    """The conversation in a row of unknown shape: plain text, one of ours, `KNOWN_KEYS`, HH-RLHF, red-team.

    Raises:
        InputError: it has none, or one of a wrong type. `what` is the reason, without the content.
    """
    if isinstance(value, str):
        messages, notes = messages_of(value, "", options)
        return Row(where, messages, notes=notes)
    if not isinstance(value, Mapping):
        raise InputError(f"a row must be an object or a string, not {_kind(value)}")
    if options.fields:
        return _from_fields(value, where, options)
    if "schema" in value and "messages" in value and "id" in value:
        return own(value, where, options)
    for key in KNOWN_KEYS:
        if key in value:
            return _row(value, where, *messages_of(value[key], key, options))
    if "chosen" in value and "rejected" in value:
        return hh(value, where, options)
    if "transcript" in value:
        return red_team(value, where, options)
    if INSTRUCTION in value:
        return _row(value, where, *_instruction(value))
    raise InputError(_no_known_key(value))


def _instruction(value: Mapping[str, Any]) -> tuple[Messages, tuple[str, ...]]:
    texts = [value[INSTRUCTION]]
    for key in INPUTS:
        found = value.get(key)
        if key == "instances" and isinstance(found, list | tuple):
            found = found[0].get("input") if found and isinstance(found[0], Mapping) else None
        if found is None or found == "":
            continue
        texts.append(found)
        break
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{INSTRUCTION} and what belongs to it must be texts; name the fields with {FIELD}")
    return (Message("user", "\n\n".join(text for text in texts if text.strip())),), ()


def own(value: Mapping[str, Any], where: str, options: ReadOptions) -> Row:
    """A row that `Prompt.row()` wrote; unknown keys and other schema versions are errors."""
    prompt = Prompt.from_row(value, where=where)
    messages, notes = cut(prompt.messages, options.turns or "all")
    if not isinstance(prompt.source, str) or not isinstance(prompt.id, str):
        raise InputError("id and source must be texts")
    return Row(where, messages, labels(value, "tags"), labels(value, "overrides"), prompt.source, notes, prompt.id)


def hh(value: Mapping[str, Any], where: str, options: ReadOptions) -> Row:
    """HH-RLHF: the turns that `chosen` and `rejected` (transcripts or lists of messages) share, all kept."""
    chosen, rejected = (_turns(value, key) for key in ("chosen", "rejected"))
    shared = transcript.common_prefix(chosen, rejected)
    if not shared:
        raise InputError("chosen and rejected share no turn")
    return _row(value, where, *cut(shared, options.turns or "all"))


def red_team(value: Mapping[str, Any], where: str, options: ReadOptions) -> Row:
    """A red-team transcript, tagged `red-team` and `rating-N` (0..4: how well the attack did, by its author).

    Only the first user turn is taken unless told otherwise: the later ones answer another model.
    """
    row = _row(value, where, *cut(_turns(value, "transcript"), options.turns or "first"))
    tags = ["red-team", *row.tags]
    rating = value.get("rating")
    if isinstance(rating, int | float) and not isinstance(rating, bool):
        tags.append(f"rating-{rating:g}")
    return dataclasses.replace(row, tags=tuple(tags))


def labels(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The labels under `key`: a list of texts, one text, or nothing."""
    found = value.get(key)
    if found is None or found == "":
        return ()
    if isinstance(found, str):
        return (found,)
    if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        raise InputError(f"{key} must be a list of texts")
    return tuple(found)


def messages_of(value: Any, key: str, options: ReadOptions) -> tuple[Messages, tuple[str, ...]]:
    """The messages that a field holds, and notes: text, messages, ShareGPT's turns, or a list of user turns.

    A text is one user turn, unless it is an HH-RLHF transcript: so people keep prompts whose answers stand elsewhere.

    A list of texts (MT-Bench's `turns`) is a script of user turns whose answers nobody has written yet, so only its
    first turn is a prompt; the others are noted as left out.
    """
    if isinstance(value, str):
        return cut(transcript.asked(value), options.turns or "all")
    if value is None:
        raise InputError(f"empty prompt ({key} is null)")
    if not isinstance(value, list | tuple) or not value:
        raise InputError(f"{key} must be a text or a list of messages, not {_kind(value)}")
    if all(isinstance(item, str) for item in value):
        if len(value) > 1 and options.turns == "all":
            raise InputError(f"{key} lists user turns without answers: only its first turn can be read")
        return (Message("user", value[0]),), (LATER_TURNS,) if len(value) > 1 else ()
    if all(isinstance(item, Mapping) and "from" in item for item in value):
        value = [{"role": _SHAREGPT.get(str(item["from"])), "content": item.get("value")} for item in value]
    return cut(messages_from(value, where=key), options.turns or "all")


def cut(messages: Messages, turns: Turns) -> tuple[Messages, tuple[str, ...]]:
    """`messages`, or with `first` what stands up to the first user turn, and a note if user turns were left out."""
    if turns == "all":
        return messages, ()
    users = [index for index, turn in enumerate(messages) if turn.role == "user"]
    if not users:
        return messages, ()
    return messages[: users[0] + 1], (LATER_TURNS,) if len(users) > 1 else ()


def check_columns(columns: Iterable[str], path: Path, options: ReadOptions) -> None:
    """Refuse a table that has no prompt in it, once, instead of row by row.

    Raises:
        InputError: none of the columns can hold a prompt, or one named by `fields` is missing.
    """
    names = list(columns)
    for field in options.fields:
        if field not in names and field.split(".")[0] not in names:
            raise InputError(f"no column {field!r}; columns: {_names(names)}", where=str(path))
    pairs = {"chosen", "rejected"} <= set(names)
    if not options.fields and not pairs and not {*KNOWN_KEYS, "transcript", INSTRUCTION} & set(names):
        raise InputError(_no_known_key(names), where=str(path))


def wanted(columns: Iterable[str], options: ReadOptions) -> list[str]:
    """Those of `columns` that can end up in a prompt."""
    own = {"schema", "id", "source", "tags", "overrides"}
    roots = {part for field in options.fields for part in (field, field.split(".")[0])}
    by_default = {*KNOWN_KEYS, INSTRUCTION, *INPUTS, "chosen", "rejected", "transcript", "rating"}
    return [name for name in columns if name in own | (roots or by_default)]


def _row(value: Mapping[str, Any], where: str, messages: Messages, notes: tuple[str, ...]) -> Row:
    return Row(where, messages, labels(value, "tags"), labels(value, "overrides"), _source(value, where), notes)


def _source(value: Mapping[str, Any], where: str) -> str:
    """The row's place with the id that it has in its own file, so that it can be found there; blank without one."""
    found = value.get("id")
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        return ""
    text = " ".join(str(found).split())
    return f"{where} id={text}" if len(text) <= _LONGEST_ID and text.isprintable() else ""


def _from_fields(value: Mapping[str, Any], where: str, options: ReadOptions) -> Row:
    found = [_field(value, name) for name in options.fields]
    if len(found) == 1:
        return _row(value, where, *messages_of(found[0], options.fields[0], options))
    texts = []
    for name, text in zip(options.fields, found, strict=True):
        if text is not None and not isinstance(text, str):
            raise InputError(f"{name} must be a text to be joined with others, not {_kind(text)}")
        texts.append(text or "")
    if not texts[0].strip():
        raise InputError(f"empty prompt ({options.fields[0]} is empty)")
    return _row(value, where, (Message("user", "\n\n".join(text for text in texts if text.strip())),), ())


def _field(value: Mapping[str, Any], name: str) -> Any:
    if name in value:
        return value[name]
    node: Any = value
    for part in name.split("."):
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            raise InputError(f"no field {name!r}; the row has: {_names(value)}")
    return node


def _turns(value: Mapping[str, Any], key: str) -> Messages:
    if key not in value:
        raise InputError(f"no field {key!r}; the row has: {_names(value)}")
    found = value[key]
    if isinstance(found, str):
        return transcript.parse(found)
    if isinstance(found, list | tuple):
        return messages_from(found, where=key)
    raise InputError(f"{key} must be a transcript, not {_kind(found)}")


def _no_known_key(names: Iterable[str]) -> str:
    known = " or ".join((*KNOWN_KEYS, INSTRUCTION))
    return f"no {known}; there is: {_names(names)}; name the one that holds the prompt with {FIELD}"


def _names(names: Iterable[str]) -> str:
    every = [str(name)[:40] for name in names]
    return ", ".join(every[:12]) + (", ..." if len(every) > 12 else "") if every else "nothing"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return "an empty list" if not value else "a list"
    return "an object" if isinstance(value, Mapping) else f"{type(value).__name__}"
