"""Distinct pairs of words over all pairs, within an answer: falls where a policy repeats itself.

Distinct-2 (Li et al. 2016, arXiv 1510.03055) falls with length alone, so both sides are read only as far as the
shorter of the two answers to a prompt goes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

HELP = "distinct pairs of words, of equal lengths"


def _distinct(words: Sequence[str]) -> float:
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def measure(answers: Sequence[str], reference: Sequence[str]) -> tuple[list[float], list[float]]:
    value, baseline = [], []
    for one, other in zip(answers, reference, strict=True):
        left, right = one.lower().split(), other.lower().split()
        shorter = min(len(left), len(right))
        value.append(_distinct(left[:shorter]))
        baseline.append(_distinct(right[:shorter]))
    return value, baseline
