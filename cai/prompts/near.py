"""Near-duplicates: MinHash LSH proposes, the true Jaccard similarity decides (Broder 1997; Leskovec et al., ch. 3).

Two prompts are compared by their character 5-grams, after NFKC, case folding and collapsing white space. Characters and
not words, because prompts are short: a changed word in ten leaves 1 in 6 of the word 5-grams but two thirds of these.
Prompts of several turns must be alike as a whole *and* in their last user turn, so that two questions about one long
conversation stay two prompts.

Memory is about 7 KB a kept prompt and its text: 100,000 prompts are nothing, 10 million do not fit a laptop.
"""

from __future__ import annotations

import unicodedata
import zlib
from typing import Any

from cai.errors import InputError
from cai.records import Prompt

SHINGLE = 5
"""Characters of a shingle."""

PERMUTATIONS = 128

_SEED = 1

RECALL = 0.99
"""Share of the pairs right at the threshold that LSH has to propose, in expectation; more of those above it."""


def normalise(text: str) -> str:
    """`text` as it is compared."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(text: str) -> frozenset[str]:
    """The character 5-grams of the normalised text; a shorter text is its own only shingle."""
    text = normalise(text)
    return frozenset(text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """|a & b| / |a | b|; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


def whole(prompt: Prompt) -> str:
    """All turns as one text."""
    return "\n".join(turn.content for turn in prompt.messages)


def similarity(a: Prompt, b: Prompt) -> float:
    """0..1: the lesser of the similarities of the whole conversations and of their last user turns."""
    alike = jaccard(shingles(whole(a)), shingles(whole(b)))
    if len(a.messages) == len(b.messages) == 1:
        return alike
    return min(alike, jaccard(shingles(a.messages[-1].content), shingles(b.messages[-1].content)))


def bands(threshold: float) -> tuple[int, int]:
    """How many bands of how many rows: the fewest false candidates that leave a `RECALL` of true ones.

    A pair of similarity s is proposed with the probability 1 - (1 - s^rows)^bands.
    """
    for rows in range(PERMUTATIONS // 2, 1, -1):
        count = PERMUTATIONS // rows
        if 1 - (1 - threshold**rows) ** count >= RECALL:
            return count, rows
    return PERMUTATIONS, 1


_SLACK = 0.16
"""By how much the sketches' estimate may fall short of the threshold before a candidate is compared in full: 5 standard
errors of 128 permutations at 0.85. It spares prompts of one long template from being compared each with each."""


class NearIndex:
    """Prompts that were kept, to be asked whether a new one is nearly the same as one of them.

    Args:
        threshold: similarity (0 < threshold <= 1) from which two prompts are the same.

    Raises:
        InputError: a threshold out of range.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise InputError("must be above 0 and at most 1", where="--near")
        from datasketch import MinHash, MinHashLSH

        self.threshold = threshold
        self._empty: Any = MinHash(num_perm=PERMUTATIONS, seed=_SEED, hashfunc=zlib.crc32)
        self._lsh: Any = MinHashLSH(num_perm=PERMUTATIONS, params=bands(threshold))
        self._kept: list[Prompt] = []
        self._sketches: list[Any] = []

    def __len__(self) -> int:
        return len(self._kept)

    def match(self, prompt: Prompt) -> tuple[Prompt, float] | None:
        """The kept prompt most like `prompt` and how like, if at least the threshold; else None, and `prompt` is kept.

        Of equally similar ones the first kept. At most 1 in 100 pairs right at the threshold is missed (`RECALL`).
        """
        sketch = self._empty.copy()
        sketch.update_batch([shingle.encode() for shingle in sorted(shingles(whole(prompt)))])
        best: tuple[Prompt, float] | None = None
        for key in sorted(self._lsh.query(sketch)):
            if float((sketch.hashvalues == self._sketches[key]).mean()) < self.threshold - _SLACK:
                continue
            alike = similarity(prompt, self._kept[key])
            if alike >= self.threshold and (best is None or alike > best[1]):
                best = self._kept[key], alike
        if best is None:
            self._lsh.insert(len(self._kept), sketch)
            self._kept.append(prompt)
            self._sketches.append(sketch.hashvalues)
        return best
