"""What answers requests, one file each; and how a backend says that it was not told a probability."""

from __future__ import annotations

from cai.engine import LOWEST

_LEAST_BOUND = -1e-6


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
