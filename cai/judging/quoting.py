"""Untrusted text as a judge may be shown it: no answer can close its own tags, end a turn or fill a slot."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from cai.records import Comparison, Messages, content_hash

CONTROL = re.compile(
    r"<\|[A-Za-z_]\w{0,39}>|<[A-Za-z_]\w{0,39}\|>"  # Gemma 4 has its bar on the side where a turn begins or ends
    r"|<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|<</?SYS>>|</?s>|<(?:start|end)_of_turn>"
    r"|<(?:bos|eos|pad|unk|sop|eop)>|<extra_id_\d{1,4}>|</?think>|</?tool_(?:call|response)>"
    r"|\[\|[^|\[\]\n]{1,40}\|\]|<SPECIAL_\d{1,4}>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|gMASK)\]"
)
"""What common chat templates write between turns; in an answer it would end our own turn and begin a forged one."""
_BEGUN = re.compile(f"(?=(?:{CONTROL.pattern})).", re.DOTALL)
"""First character of a token. Found by looking ahead, so that one inside another is broken up too."""


def quote(text: str) -> str:
    """Text of prompt or answer as a judge may be shown it: control tokens of chat templates broken up by a blank."""
    return _BEGUN.sub(lambda begun: f"{begun[0]} ", text.strip())


def fence(turns: Sequence[str], answers: Sequence[str] = ()) -> str:
    """A mark of 6 hex digits that occurs in no turn and no answer, for the tags around them: none can close its own.

    Made of the turns alone, so that all comparisons of answers to them begin alike, first answer included, and are
    served from the prefix cache. Who knows the turns can work it out; but where an answer holds it, the next one is
    taken, and for none to be left it would have to hold all 16 million.
    """
    texts = (*turns, *answers)
    marks = (content_hash(number, list(turns), length=6) for number in itertools.count())
    return next(mark for mark in marks if not any(mark in text for text in texts))


PAIR_SLOTS = ("conversation", "answer_a", "answer_b", "question")
"""Slots that the prompt of a pair judge needs; `mark` may be left out."""


def pair_slots(shown: Comparison, question: str) -> dict[str, str]:
    """Values of a pair prompt's slots."""
    return {
        "conversation": conversation(shown.prompt.messages),
        "answer_a": quote(shown.a.text),
        "answer_b": quote(shown.b.text),
        "question": question.strip(),
        "mark": fence([turn.content for turn in shown.prompt.messages], [shown.a.text, shown.b.text]),
    }


def conversation(messages: Messages) -> str:
    """The prompt between tags, several turns each between its own: the same for all answers to it."""
    mark = fence([turn.content for turn in messages])

    def block(tag: str, text: str) -> str:
        return f"<{tag} {mark}>\n{text}\n</{tag} {mark}>"

    told = quote(messages[0].content)
    if len(messages) > 1:
        told = "\n".join(block(turn.role, quote(turn.content)) for turn in messages)
    return block("conversation", told)
