"""What a model did wrong in a critique-revise step, so that it is recorded and not passed on.

Pure functions of texts: no model is asked. The detectors know English; on other languages only those that compare
texts or count (`truncated`, `empty`, `unchanged`, `critique_copied`, `response_copied`, `repetition`, tokens) work.
Wording that the prompt asks for ("review my essay", "write a dialogue") is never a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cai.faults import leaks, likeness
from cai.faults.boilerplate import moralises
from cai.faults.refusal import bare, refuses
from cai.faults.text import asked, has_content
from cai.records import Messages

__all__ = [
    "BLOCKING",
    "FLAGS",
    "RECORDED",
    "SAYS_NOTHING",
    "SKIPPED",
    "critique_flags",
    "draft_flags",
    "refuses",
    "revision_flags",
]

# In the order in which they are reported.
FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "truncated": "The token limit cut the text off.",
        "empty": "There is nothing to read: blank, or only punctuation and markup.",
        "unchanged": "The revision is its parent again, apart from case, markdown or a word that changes nothing.",
        "scaffold": 'Labels, preambles or tokens of the loop leaked into the text ("Revision:", "<|im_end|>").',
        "point_of_view": 'It speaks about the answer, thanks for the critique or writes the user\'s turn ("Human:").',
        "critique_copied": "Most of the revision is the critique's own words.",
        "response_copied": "Most of the critique is the response again instead of a judgement of it.",
        "repetition": "The text has fallen into a loop: the same words or sentence over and over.",
        "bare_refusal": "A revision or critique is nothing but a refusal: no reason, and nothing in its place.",
        "no_critique": "The critic said nothing of the answer (empty, bare refusal, the answer again); round skipped.",
        "refused": "The backend refused it (a server's filter): a round that was skipped, or an answer without text.",
        "too_long": "It did not fit into the model's context: a round that was skipped, or an answer without text.",
        "refusal": "The text opens by declining, wholly or in part, what was asked; recorded, not a fault by itself.",
        "boilerplate": "Stock comfort or morals that nobody asked for; recorded, not a fault by itself.",
    }
)

# Recorded only: a refusal with its reasons may be the right answer, and a moral may belong to it.
RECORDED: frozenset[str] = frozenset({"refusal", "boilerplate"})
# The flags that by default keep a revision from being passed on.
BLOCKING: frozenset[str] = frozenset(FLAGS) - RECORDED
# A round that carries one was not brought to its end; there is no text.
SKIPPED: frozenset[str] = frozenset({"no_critique", "refused", "too_long"})
# A critique that carries one says nothing of the answer: it leaves the reviser nothing to go by.
SAYS_NOTHING: frozenset[str] = frozenset({"empty", "bare_refusal", "response_copied"})

# A critique quotes what it judges; this much of it being quotation leaves no judgement.
_MOSTLY_QUOTED = 0.8


def draft_flags(text: str, *, finish_reason: str, prompt: Messages = ()) -> tuple[str, ...]:
    """What is wrong with a draft, in the order of `FLAGS`.

    Args:
        finish_reason: as the backend gave it; `length` when the token limit cut the text off.
        prompt: what was asked, if at hand; text that the user asked for is not a fault.
    """
    wanted = asked(prompt)
    return _found(
        truncated=finish_reason == "length",
        empty=not has_content(text),
        scaffold=leaks.tokens(text, wanted),
        point_of_view=leaks.writes_turn(text, wanted),
        repetition=likeness.loops(text) and not leaks.wants_repetition(wanted),
        refusal=refuses(text),
        boilerplate=moralises(text, wanted),
    )


def critique_flags(text: str, *, finish_reason: str, response: str) -> tuple[str, ...]:
    """What is wrong with a critique of `response`, in the order of `FLAGS`.

    Talk about "the response" is what a critique is for; writing the revision, or the user's next turn, is not. Tokens
    that stand in the response may be quoted.
    """
    return _found(
        truncated=finish_reason == "length",
        empty=not has_content(text),
        scaffold=leaks.tokens(text, response) or leaks.writes_revision(text),
        point_of_view=leaks.writes_turn(text, response),
        response_copied=likeness.copied_share(text, response) >= _MOSTLY_QUOTED,
        repetition=likeness.loops(text),
        bare_refusal=bare(text),
        refusal=refuses(text),
    )


def revision_flags(
    text: str, *, finish_reason: str, parent: str, critique: str | None, prompt: Messages
) -> tuple[str, ...]:
    """What is wrong with a revision of `parent` that answers `prompt`, in the order of `FLAGS`.

    Args:
        critique: what the revision was to mend; None in the ablation without critiques.
        prompt: the conversation that both answer; its last turn is the user's.
    """
    wanted = asked(prompt)
    had_answer = any(turn.role == "assistant" for turn in prompt)
    truncated = finish_reason == "length"
    return _found(
        truncated=truncated,
        empty=not has_content(text),
        unchanged=likeness.unchanged(text, parent, critique=critique or "", cut=truncated),
        scaffold=leaks.scaffold(text, wanted, had_answer=had_answer),
        point_of_view=leaks.point_of_view(text, wanted, had_answer=had_answer),
        critique_copied=critique is not None and likeness.copies_critique(text, critique, parent=parent, asked=wanted),
        repetition=likeness.loops(text) and not leaks.wants_repetition(wanted),
        bare_refusal=bare(text),
        refusal=refuses(text),
        boilerplate=moralises(text, wanted),
    )


def _found(**flags: bool) -> tuple[str, ...]:
    return tuple(name for name in FLAGS if flags.get(name))
