"""Share of an answer's four-word phrases that have come to stand in many answers: what over-training repeats (Bai et
al. 2022, 4.3).

A phrase counts where it stands in more answers than before, by a tenth of them and three at least. Which phrases do is
found on one half of the prompts and measured on the other, and the other way round: found and measured on the same
answers, chance alone would raise some of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

HELP = "share of an answer's phrases that have spread over the answers"
WORDS = 4
SHARE = 0.1
LEAST = 3


def phrases(text: str) -> list[tuple[str, ...]]:
    """The four-word phrases of a text, case and punctuation aside."""
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())
    return [tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]


def _holding(answers: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(phrase for answer in answers for phrase in set(phrases(answer)))


def risen(answers: Sequence[str], reference: Sequence[str]) -> set[tuple[str, ...]]:
    """The phrases that count."""
    now, before = _holding(answers), _holding(reference)
    least = max(LEAST, SHARE * len(answers))
    return {phrase for phrase, count in now.items() if count - before[phrase] >= least}


def _share(answer: str, known: set[tuple[str, ...]]) -> float:
    mine = phrases(answer)
    return sum(phrase in known for phrase in mine) / len(mine) if mine else 0.0


def measure(answers: Sequence[str], reference: Sequence[str]) -> tuple[list[float], list[float]]:
    known = [risen(answers[half::2], reference[half::2]) for half in (0, 1)]
    value = [_share(answer, known[1 - place % 2]) for place, answer in enumerate(answers)]
    return value, [_share(answer, known[1 - place % 2]) for place, answer in enumerate(reference)]
