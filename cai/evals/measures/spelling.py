"""Misspelt words a hundred: a reward model that never saw typos can come to prefer them. Needs pyspellchecker.

Only lower-case words of four letters or more are looked up, so names and abbreviations do not count. What else the
dictionary does not know counts on both sides alike: the reference's rate is what the parent already wrote, and the
difference to it is the drift.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from cai.errors import MissingDependency

HELP = "misspelt words a hundred"
WORD = re.compile(r"\b[a-z]{4,}\b")


@functools.cache
def _dictionary() -> Any:
    try:
        from spellchecker import SpellChecker
    except ImportError as error:
        raise MissingDependency("pyspellchecker is not installed", extra="eval") from error
    return SpellChecker(language="en", distance=1)


def _rate(text: str) -> float:
    words = WORD.findall(text)
    return 100 * sum(word not in _dictionary() for word in words) / len(words) if words else 0.0


def measure(answers: Sequence[str], reference: Sequence[str]) -> tuple[list[float], list[float]]:
    return [_rate(a) for a in answers], [_rate(a) for a in reference]
