"""Whether two answers say the same, so that a verdict between them would be noise.

What is dropped as the same can never be judged, so in doubt two answers are different: equality is of words and of the
signs that turn a meaning round (`x = 2` and `x = -2`), and likeness counts only where numbers and negations agree.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from cai.constitution.words import UNSPACED
from cai.faults.text import Words, grams, straight, unnumbered, words

_MARKS = frozenset({"Sm", "Sc", "So"})
"""Unicode categories of mathematical signs, currencies and pictures."""
_SIGNS = re.compile(
    r"[-\u2212\u2013](?=\s?\d)|(?<![\w\s])[-\u2212](?=\w)|(?<=\s)[-\u2212](?=\w)|^[-\u2212](?=\w)"  # a minus, no hyphen
    r"|[/%^&\\]|!(?=[\w=(])|(?<=\w)#|(?<=[\d)])\s?\*+\s?(?=[\d(])|(?<=\d)[.,](?=\d)"
)
_DECISIVE = re.compile(r"\d|^(?:no|not|never|none|nor|without|cannot|yes|true|false|\w+n't)$|^[不没沒無无非未]$")
_UNSPACED = re.compile(rf"[{UNSPACED}]")


def same(one: str, other: str, *, threshold: float) -> bool:
    """Whether two answers count as one.

    They do where their text is equal; where their words and signs are equal (case, markdown, list numbers and
    punctuation aside); or where they share at least `threshold` of their pairs of words (of characters, in scripts
    without blanks; Dice's coefficient), with equal numbers, signs and negations. Texts without words, such as emoji or
    a formula of signs alone, count as one only where they are equal but for white space.
    """
    if one == other:
        return True
    mine, theirs = units(one), units(other)
    if not mine or not theirs:
        return "".join(one.split()) == "".join(other.split())
    if signs(one) != signs(other):
        return False
    if mine == theirs:
        return True
    if min(len(mine), len(theirs)) < 2:  # no pair to share
        return False
    if _shared(one, other) < threshold:
        return False
    changed = (Counter(mine) - Counter(theirs)) + (Counter(theirs) - Counter(mine))
    return not any(_DECISIVE.search(unit) for unit in changed)


def _shared(one: str, other: str) -> float:
    """Dice's coefficient of the pairs of units. As `cai.faults.text.dice`, with what it counts kept: most answers share
    next to nothing, and this is asked of every two of them."""
    mine, theirs = _pairs(one), _pairs(other)
    shared = sum(min(mine[pair], theirs[pair]) for pair in mine.keys() & theirs.keys())
    return 2 * shared / (mine.total() + theirs.total())


# Each answer of a group is compared with all the others.
@lru_cache(maxsize=64)
def units(text: str) -> Words:
    """The words of `text`; one in a script without blanks falls into its characters."""
    found: list[str] = []
    for word in words(text):
        found += word if _UNSPACED.search(word) else (word,)
    return tuple(found)


@lru_cache(maxsize=64)
def _pairs(text: str) -> Counter[Words]:
    return Counter(grams(units(text), 2))


@lru_cache(maxsize=64)
def signs(text: str) -> tuple[str, ...]:
    """What stands between the words and is no punctuation, in order: operators, a minus, currencies, pictures."""
    plain = unnumbered(unicodedata.normalize("NFKC", straight(text)))
    at = {found.start(): found[0].strip() for found in _SIGNS.finditer(plain)}
    for place, character in enumerate(plain):
        if unicodedata.category(character) in _MARKS:
            at.setdefault(place, character)
    return tuple("-" if at[place] in "-\u2212\u2013" else at[place] for place in sorted(at))
