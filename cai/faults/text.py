"""Views of a text on which the detectors agree: plain words, its opening, the share of one text found in another.

Everything here is linear in the length of the text, so that a 100 kB answer costs milliseconds.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from cai.records import Messages

Words = tuple[str, ...]

_QUOTES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "\u00a0": " "})
# A letter may carry combining marks, and an apostrophe inside a word belongs to it ("don't").
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_NUMBERING = re.compile(r"^[ \t]*(?:\d{1,3}[.)]|[-*+•])[ \t]+", re.MULTILINE)
EMPHASIS = re.compile(r"[*_`#>]+")
_TAG = re.compile(r"(?<!`)</?[A-Za-z][^<>`]{0,200}>|<\|[^<>|]{0,40}\|>|```[\w+-]*")
# Markup that is there to be seen is not an answer, but a picture is: "reply with one emoji".
_PICTURES = ("So",)


def straight(text: str) -> str:
    """`text` with straight quotes, so that a pattern need name only one apostrophe."""
    return text.translate(_QUOTES)


# One call asks for the words of the same few texts several times over.
@lru_cache(maxsize=32)
def words(text: str) -> Words:
    """The words, folded to one case and width, without markdown, list numbers or punctuation."""
    plain = unicodedata.normalize("NFKC", straight(text)).casefold()
    return tuple(_WORD.findall(unnumbered(plain)))


def unnumbered(text: str) -> str:
    """`text` without the numbers and bullets that open its lines."""
    return _NUMBERING.sub("", text)


def has_content(text: str) -> bool:
    """Whether anything is left to read once markup and punctuation are taken away."""
    plain = _TAG.sub("", text)
    if any(char.isalnum() for char in plain):
        return True
    return any(unicodedata.category(char) in _PICTURES for char in plain)


def opening(text: str, *, sentences: int = 2, limit: int = 500) -> str:
    """The first `sentences` sentences (at most `limit` characters) without emphasis, quotes straightened."""
    start = EMPHASIS.sub("", straight(text[: 2 * limit])).strip()[:limit]
    ends = [match.end() for match in re.finditer(r"[.!?]+(?=\s)|\n[ \t]*\n", start)]
    return start[: ends[sentences - 1]] if len(ends) >= sentences else start


def grams(tokens: Words, size: int) -> list[Words]:
    """Every run of `size` words, in order."""
    return list(zip(*(tokens[at:] for at in range(size)), strict=False))


def dice(left: Words, right: Words, *, size: int = 2) -> float:
    """Likeness of two texts in [0, 1]: shared runs of `size` words over all runs.

    Of texts too short for a run, whether they are equal.
    """
    a, b = Counter(grams(left, size)), Counter(grams(right, size))
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else float(left == right)


def asked(prompt: Messages) -> str:
    """What the user and the system said, as one text: what they asked for is not a fault."""
    return straight("\n".join(turn.content for turn in prompt if turn.role != "assistant"))
