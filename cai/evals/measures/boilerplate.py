"""Share of an answer's four-word phrases that many other answers share: what over-training repeats (Bai et al. 2022,
4.3).

A phrase counts where it stands in at least three answers and in a tenth of them. Both sides are measured against
their own set, so a policy that says the same to everybody is seen whatever it says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

HELP = "share of an answer's phrases that a tenth of the answers have"
WORDS = 4
SHARE = 0.1
LEAST = 3


def phrases(text: str) -> list[tuple[str, ...]]:
    """The four-word phrases of a text, case and punctuation aside."""
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())
    return [tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]


def common(answers: Sequence[str]) -> Counter[tuple[str, ...]]:
    """The phrases that count, with the number of answers they are in."""
    seen: Counter[tuple[str, ...]] = Counter()
    for answer in answers:
        seen.update(set(phrases(answer)))
    least = max(LEAST, SHARE * len(answers))
    return Counter({phrase: count for phrase, count in seen.items() if count >= least})


def _shares(answers: Sequence[str]) -> list[float]:
    known = common(answers)
    found = []
    for answer in answers:
        mine = phrases(answer)
        found.append(sum(phrase in known for phrase in mine) / len(mine) if mine else 0.0)
    return found


def measure(answers: Sequence[str], reference: Sequence[str]) -> tuple[list[float], list[float]]:
    return _shares(answers), _shares(reference)
