"""What a reader yields, and how it becomes a `Prompt`.

A reader yields a `Row` for each conversation it found and a `BadRow` for each it could not read; `finish` makes the
`Prompt`. So a rule that holds for every format (a prompt ends with a user turn, is not empty, is valid Unicode) stands
here once. Nothing that is left out of a conversation goes unmentioned: it is a note, and notes are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cai.errors import InputError
from cai.records import Messages, Prompt

Turns = Literal["first", "all"]

Tick = Callable[[int], None]
"""Called now and then with the number of bytes of the file (as it lies on the disk) that have been read."""

ANSWER_DROPPED = "answer_dropped"
"""Note: the conversation ended with assistant turns; the prompt is what came before them."""

LATER_TURNS = "later_turns_left_out"
"""Note: only the conversation up to its first user turn was taken."""

ID_RECOMPUTED = "id_recomputed"
"""Note: a row of ours carried an id that its messages do not have; somebody edited the file."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How rows are read, where the format leaves a choice.

    Attributes:
        fields: keys (or columns) that hold the prompt, `instances.0.input` for a nested one; the texts of several are
            joined by a blank line, empty ones left out. Empty: the keys the format is known to use.
        turns: `first` ends the prompt at its first user turn, `all` keeps the conversation up to its last one. None:
            the format's own choice, which is `first` for red-team transcripts and `turns` lists, else `all`.
        paragraphs: plain text has one prompt a paragraph instead of one a line.
    """

    fields: tuple[str, ...] = ()
    turns: Turns | None = None
    paragraphs: bool = False


DEFAULT_OPTIONS = ReadOptions()

FIELD, FORMAT = "--field (in a recipe: fields)", "--format (in a recipe: format)"
"""How whoever gave a file says which keys of it hold the prompt, and which format it is in."""


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation as a file holds it.

    Attributes:
        where: `file:line` (the row's number for Parquet and data sets), counted from 1.
        source: what the row itself says about where it came from; empty: `where`.
        notes: what was left out of it on the way here.
        id: the id that a row of ours claims to have; it is computed again, never believed: all else hangs on it.
    """

    where: str
    messages: Messages
    tags: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be read; `reason` never quotes its content.

    Attributes:
        torn: it is where a torn or corrupt file ends: nobody knows how many rows after it are lost.
    """

    where: str
    reason: str
    torn: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"

    def error(self) -> InputError:
        """The error that this row is where broken rows are not put up with."""
        return InputError(self.reason, where=self.where)


def finish(row: Row, tags: tuple[str, ...] = ()) -> tuple[Prompt, tuple[str, ...]] | BadRow:
    """The prompt that `row` holds, with `tags` added to its own, and the notes about it.

    Trailing assistant turns are dropped (with a note): a prompt is what remains to be answered.
    """
    messages, notes = row.messages, row.notes
    while messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    if len(messages) < len(row.messages):
        notes = (*notes, ANSWER_DROPPED)
    if not messages or messages[-1].role != "user":
        return BadRow(row.where, "no user turn to answer")
    if not messages[-1].content.strip():
        return BadRow(row.where, "empty prompt")
    if not all(_encodable(turn.content) for turn in messages):
        return BadRow(row.where, "not valid Unicode (half of a surrogate pair)")
    every = tuple(dict.fromkeys((*row.tags, *tags)))
    prompt = Prompt.make(messages, tags=every, source=row.source or row.where, overrides=row.overrides)
    if row.id and row.id != prompt.id and not notes:
        notes = (ID_RECOMPUTED,)
    return prompt, notes


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
