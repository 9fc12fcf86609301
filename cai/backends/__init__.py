"""What answers requests, one file each; and what they share: how an answer ended, a probability that was not told, and
turns for a chat template that has none of the system's."""

from __future__ import annotations

from typing import TypeGuard

from cai.engine import LOWEST
from cai.errors import BackendError, PromptRefused
from cai.records import Message, Messages

_LEAST_BOUND = -1e-6
_CUT = frozenset({"length", "repetition"})  # the latter is vLLM's, which ends an answer that goes round in circles
_BROKEN_OFF = frozenset({"abort", "error", "insufficient_system_resource"})


def finish_reason(told: str | None, *, where: str) -> str:
    """A `Completion`'s finish reason, of what a server or an engine says; a call of a tool is an end like any other.

    Raises:
        PromptRefused: a content filter cut the answer; what is left of it is not what the model had to say.
        BackendError: it was broken off, and may be whole when it is asked for again.
    """
    if told == "content_filter":
        raise PromptRefused("a content filter cut the answer", where=where)
    if told in _BROKEN_OFF:
        raise BackendError(f"the answer was broken off ({told})", where=where, retryable=True)
    return "length" if told in _CUT else "stop"


def unseen(bound: float) -> float:
    """In place of a choice's log-probability, where a server tells only its likeliest tokens and the choice is none.

    Always below `LOWEST`, so that whoever does not ask takes the choice for ruled out.

    Args:
        bound: log-probability that the choice has at most.
    """
    return LOWEST + min(bound, _LEAST_BOUND)


def bound_of(logprob: float) -> float | None:
    """What `unseen` was given; None of a log-probability that was told."""
    return logprob - LOWEST if logprob < LOWEST else None


def folds(prompt: Messages | str) -> TypeGuard[Messages]:
    """Whether a conversation begins with a system turn that can be `folded` into the user's."""
    return not isinstance(prompt, str) and [turn.role for turn in prompt[:2]] == ["system", "user"]


def folded(turns: Messages) -> Messages:
    """The turns without the system's, whose text stands before the user's."""
    system, user, *others = turns
    return (Message("user", f"{system.content}\n\n{user.content}"), *others)
