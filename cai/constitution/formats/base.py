"""What the formats share: their types, taking wrapped texts apart, and naming what a file cannot carry."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cai.constitution.load import Bound, Constitution
from cai.constitution.model import DEFAULT_LEVELS, ConstitutionFile, FewShot, Principle, Templates
from cai.errors import InputError
from cai.records import content_hash


@dataclass(frozen=True)
class Source:
    """A parsed JSON file."""

    file: str
    data: Any

    def wrong(self, key: str, what: str) -> InputError:
        """The error that names this file and a key in it."""
        return InputError(what, where=f"{self.file}: {key}" if key else self.file)


@dataclass(frozen=True)
class Imported:
    """What was read, not yet on disk.

    Attributes:
        expected: part -> the JSON that exporting it has to give back.
        notes: sentences for the user, on what is kept but has no effect.
    """

    file: ConstitutionFile
    principles: tuple[Principle, ...]
    expected: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """The JSON of one file, and what it could not carry."""

    data: Any
    notes: tuple[str, ...] = field(default=())


def text_of(source: Source, key: str, value: Any) -> str:
    """`value` if it is text that says something.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, str) or not value.strip():
        raise source.wrong(key, "must be text that is not blank")
    return value


def unwrap(text: str, before: str, after: str) -> tuple[str, list[str] | None]:
    """`text` without its usual frame, and the frame it really had where that was another.

    `before` and `after` count as present whatever white space surrounds them; `before + core + after`, with the frame
    that is returned in place of the usual one, is `text` again.
    """
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    if text.startswith(before.strip(), start):
        start += len(before.strip())
    if text.endswith(after.strip(), start, end):
        end -= len(after.strip())
    if not text[start:end].strip():  # nothing but the frame's own words
        start, end = 0, len(text)
    core = text[start:end].strip()
    start = text.index(core, start)
    frame = [text[:start], text[start + len(core) :]]
    return core, None if frame == [before, after] else frame


def wrapped(text: str, before: str, after: str, frame: Any) -> str:
    """`text` in its own `frame` (as `unwrap` gave it), or in the usual one."""
    if isinstance(frame, list) and len(frame) == 2 and all(isinstance(part, str) for part in frame):
        before, after = frame
    return f"{before}{text}{after}"


def slug(text: str, taken: Collection[str]) -> str:
    """An id made of `text` that is not in `taken`, also not in another case: some file systems know no case."""
    base = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._") or "principle"
    used = {name.lower() for name in taken}
    number, name = 2, base
    while name.lower() in used:
        name, number = f"{base}-{number}", number + 1
    return name


def title_of(text: str) -> str:
    """A title for a principle that came without one: its first words, or characters where no word ends in time."""
    placeholder = " …"
    title = textwrap.shorten(text, 60, placeholder=placeholder)
    return title if title != placeholder.strip() else f"{' '.join(text.split())[:59]}…"


def kept(source: Mapping[str, Any], format: str) -> dict[str, Any]:
    """What an import in `format` kept in the `source` of a principle or a constitution."""
    value = source.get(format)
    return dict(value) if isinstance(value, dict) else {}


def shot_key(shot: FewShot) -> str:
    """Names a few-shot example by its content, so that what is kept about it survives reordering, not editing."""
    return content_hash(shot.model_dump(mode="json"), length=12)


SIX = ("prompt", "response", "critique_request", "critique", "revision_request", "revision")


def six_fields(shot: FewShot) -> tuple[str, ...] | None:
    """The example as its six texts, also when it is a conversation of those six turns; else None."""
    if shot.prompt:
        return tuple(getattr(shot, name) for name in SIX)
    if [turn.role for turn in shot.messages] == ["user", "assistant"] * 3:
        return tuple(turn.content for turn in shot.messages)
    return None


def lost(constitution: Constitution, exported: Sequence[Bound], *, carried: Collection[str]) -> list[str]:
    """A note for each thing that `constitution` says and a file cannot that has only `carried` of `exported`.

    Args:
        carried: of `critique`, `judge`, `few_shot`.
    """
    bounds = constitution.principles
    out = {b.id for b in exported}

    def of(ids: Sequence[str]) -> str:
        return f"{', '.join(ids[:5])}{f' and {len(ids) - 5} more' if len(ids) > 5 else ''}"

    critics = [b.id for b in bounds if b.principle.revises and ("critique" not in carried or b.id not in out)]
    judges = [b.id for b in bounds if b.principle.judge.strip() and ("judge" not in carried or b.id not in out)]
    axes = [b.id for b in bounds if b.principle.axis != "harmless"]
    weights = len({b.weight for b in bounds}) > 1
    levels = [b.id for b in bounds if b.level.name != "goal"]
    asks = [b.id for b in bounds if any((b.principle.asks, b.principle.notes, b.principle.examples, b.principle.tags))]
    said = [
        (critics, "the critique and revision requests of"),
        (judges, "the judge questions of"),
        (levels, "the levels of"),
        (axes, "the axes of"),
        (asks, "what is written for people (asks, notes, examples, tags) of"),
    ]
    notes = [f"{what} {of(ids)}" for ids, what in said if ids]
    if weights:
        off = [b.id for b in bounds if b.weight == 0 and b.id in out]
        notes.append("the weights" + (f"; turned off here but not there: {of(off)}" if off else ""))
    if constitution.levels != DEFAULT_LEVELS:
        notes.append("the constitution's own levels")
    if constitution.few_shot and "few_shot" not in carried:
        notes.append(f"{len(constitution.few_shot)} few-shot examples")
    if constitution.templates != Templates():
        notes.append("the templates")
    if constitution.system_prompt:
        notes.append("the system prompt")
    return notes
