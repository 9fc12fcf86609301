"""Principles that say nearly the same: drawing one is then drawing the other, and its real weight is the sum."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence

from cai.constitution.load import Bound
from cai.constitution.model import Principle
from cai.constitution.words import WORD

THRESHOLD = 0.8
"""Share of words in common, in order, from which two principles count as near-duplicates.

Principles share their frame ("Identify ways in which the assistant's last response is ..."), so the measure has to tell
frame from content. On the 16 critique principles of Bai et al. 2022, 34 to 69 words long, the two most alike (their
first and their last, which a reader would call variants) score 0.72, and copies with 4 words replaced score 0.87 or
more; Jaccard measures over word bi- and trigrams separated the two less well.
"""


def words(principle: Principle) -> list[str]:
    """What the principle says, as lower-case words (see `WORD`): all that a model can be given of it."""
    said = (principle.asks, principle.critique, principle.revision, principle.judge)
    return re.findall(WORD, " ".join(said).lower())


def similarity(a: Sequence[str], b: Sequence[str], *, at_least: float = 0.0) -> float:
    """2 * (words in matching runs, in order) / (words in both), in 0..1; 0 if it cannot reach `at_least`.

    Symmetric: difflib's ratio depends on the order of its arguments, so they are put in a fixed one.
    """
    total = len(a) + len(b)
    if not total:
        return 0.0
    # Words in common regardless of order bound the ratio from above, at a hundredth of the cost.
    if 2 * (Counter(a) & Counter(b)).total() < at_least * total:
        return 0.0
    first, second = sorted((list(a), list(b)))
    ratio = difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()
    return ratio if ratio >= at_least else 0.0


def near_duplicates(principles: Sequence[Bound], *, threshold: float = THRESHOLD) -> list[tuple[Bound, Bound, float]]:
    """Pairs (earlier, later, similarity) of principles with a weight above 0 that are at least `threshold` alike."""
    said = [(bound, words(bound.principle)) for bound in principles if bound.weight > 0]
    found = []
    for index, (later, theirs) in enumerate(said):
        for earlier, ours in said[:index]:
            value = similarity(ours, theirs, at_least=threshold)
            if value:
                found.append((earlier, later, value))
    return found
