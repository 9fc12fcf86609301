"""HH-RLHF transcripts: `"\\n\\nHuman: ...\\n\\nAssistant: ..."` to turns, all of them, none cut (arXiv 2204.05862).

A speaker's name counts only where the format puts it: at the start, or after a blank line, followed by white space or
the end. "Human:" within a paragraph, and any other colon, is text.
"""

from __future__ import annotations

import re

from cai.errors import InputError
from cai.records import Message, Messages

_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):(?=\s|\Z)")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def parse(text: str) -> Messages:
    """The turns of a transcript; white space around a turn belongs to the format and is not kept.

    Two turns of one speaker in a row stay two, an empty turn stays empty: HH-RLHF has both.

    Raises:
        InputError: the text does not start with a speaker.
    """
    marks = list(_MARK.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise InputError("the transcript does not start with 'Human:' or 'Assistant:'")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return tuple(
        Message(_ROLES[mark.group(1)], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)
    )


def asked(text: str) -> Messages:
    """The prompt that a text is: one user turn; of a transcript that a human begins, its turns.

    An empty last turn of the assistant is only the place for the answer (`"\\n\\nAssistant:"`), and no turn.
    """
    begin = _MARK.match(text)
    if begin is None or _ROLES[begin.group(1)] != "user":
        return (Message("user", text),)
    *turns, last = parse(text)
    return tuple(turns) if last == Message("assistant", "") else (*turns, last)


def common_prefix(a: Messages, b: Messages) -> Messages:
    """The turns that `a` and `b` share from the start."""
    shared = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        shared += 1
    return a[:shared]
