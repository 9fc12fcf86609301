"""A text that says again what was said: its parent, the critique, the answer it was to criticise, or itself."""

from __future__ import annotations

import re
from collections import Counter

from cai.faults.text import Words, dice, grams, straight, unnumbered, words

# Near-equality. 0.98 of the word pairs leaves room for one word in a hundred: what sampling puts into a copy. Below
# it small mends begin, which are what a revision is for.
UNCHANGED = 0.98
# Words that turn a sentence round by themselves; an edit that touches one is never "nearly the same".
_DECISIVE = re.compile(r"\d|^(?:no|not|never|none|nor|without|cannot|can|may|must|should|only|unless|un\w+|\w+n't)$")
# Edits that change no content.
_FILLERS = frozenset(
    ["a", "an", "the", "and", "or", "but", "so", "that", "this", "is", "are", "was", "were", "be", "to", "of", "in"]
)
# Most critiques have these: one of them there says nothing of what the critique is about.
_COMMON = _FILLERS | {"it", "its", "you", "your", "as", "at", "by", "for", "from", "if", "on", "with", "more", "some"}

_SHINGLE = 4
COPIED = 0.5
_QUOTED = re.compile(r'"[^"]{20,2000}"|```[\s\S]*?(?:```|\Z)')
# What a critic offers as a better answer is there to be taken over.
_SUGGESTION = re.compile(
    r"\b(?:better|improved|revised|rewritten|corrected|alternative|possible|suggested|example|instead|rephrased?|"
    r"could (?:say|be|read|write)|should (?:say|read|write))\b[^:\n]{0,80}:[\s\S]{0,4000}",
    re.IGNORECASE,
)

_LOOP_GRAM = 4
# A lookbehind: `[.!?]+\s+` would try every full stop of "....." to its end, in quadratic time.
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
# `haha...`, `aaaa...`, also in scripts without spaces; digits repeat by right (10^30).
_CHARACTER_LOOP = re.compile(r"([^\W\d_]{1,8}?)\1{24,}")


def unchanged(text: str, parent: str, *, critique: str = "", cut: bool = False) -> bool:
    """Whether a revision is its parent again.

    True when both have the same words (case, markdown, punctuation and list numbers aside); when they differ only in
    words like "the"; when the Dice coefficient of their word pairs is at least `UNCHANGED`, as many words came in as
    went out, and neither a number, negation or modal verb nor a word that the `critique` speaks of is among them; or,
    for a text `cut` by the token limit, when it is the beginning of its parent. Texts without words are compared
    without their white space.
    """
    new, old = words(text), words(parent)
    if not new or not old:
        return not new and not old and "".join(text.split()) == "".join(parent.split())
    if new == old or (cut and len(new) >= _SHINGLE and new[:-1] == old[: len(new) - 1]):
        return True
    allowance = 2 * (1 - UNCHANGED) * (len(new) + len(old))
    # The usual case, a real revision, ends here, before anything is counted.
    if len((set(new) ^ set(old)) - _FILLERS) > allowance:
        return False
    added, removed = Counter(new) - Counter(old), Counter(old) - Counter(new)
    changed = added + removed
    # A changed word changes a pair, so many changed words rule out near-equality; fillers alone never do.
    if not (changed.total() <= allowance or changed.keys() <= _FILLERS) or any(
        _DECISIVE.search(word) for word in changed
    ):
        return False
    if [word for word in new if word not in _FILLERS] == [word for word in old if word not in _FILLERS]:
        return True
    # One wrong name, put right, may be all that was asked for.
    if changed.keys() & set(words(critique)) - _COMMON:
        return False
    # To strike words out or to add a sentence is done on purpose; a copy at high temperature swaps word for word.
    return added.total() == removed.total() and dice(new, old) >= UNCHANGED


def copied_share(text: str, source: str, *, known: tuple[str, ...] = ()) -> float:
    """Share in [0, 1] of the word 4-grams of `text` that stand in `source` and in none of `known`; 0 if short."""
    mine = grams(words(text), _SHINGLE)
    if len(mine) < 2 * _SHINGLE:
        return 0.0
    theirs = set(grams(words(source), _SHINGLE))
    for other in known:
        theirs.difference_update(grams(words(other), _SHINGLE))
    return sum(gram in theirs for gram in mine) / len(mine)


def copies_critique(text: str, critique: str, *, parent: str, asked: str) -> bool:
    """Whether most of a revision is the critique's own words: not what it quotes, nor the better answer it proposes."""
    own = _SUGGESTION.sub(" ", _QUOTED.sub(" ", straight(critique)))
    if words(text) and words(text) == words(critique):
        return True
    return copied_share(text, own, known=(parent, asked)) >= COPIED


def loops(text: str) -> bool:
    """Whether `text` has fallen into a loop: the same words in a row, or the same sentence, over and over.

    A loop is a stretch of at least 24 words that repeats with a fixed period, four times over (three for a period of
    12 words or more); or one sentence of four or more words that comes at least four times and makes up 40 % of the
    words. A chorus that comes three times, a table or a list is not one.
    """
    tokens = words(text)
    if any(len(token) > 24 and _CHARACTER_LOOP.search(token) for token in tokens):
        return True
    return _runs(tokens) or _says_again(text, len(tokens))


def _runs(tokens: Words) -> bool:
    """Follow each 4-gram back to its last occurrence: in a loop the distance to it, the period, stays the same."""
    last: dict[Words, int] = {}
    period = length = 0
    for at, gram in enumerate(grams(tokens, _LOOP_GRAM)):
        gap = at - last.get(gram, at)
        last[gram] = at
        length = length + 1 if gap and gap == period else int(gap > 0)
        period = gap
        if not period:
            continue
        matched = length + _LOOP_GRAM - 1
        if matched + period >= 24 and matched >= (2 if period >= 12 else 3) * period:
            unit = tokens[at + _LOOP_GRAM - period : at + _LOOP_GRAM]
            if any(word[0].isalpha() for word in unit):
                return True
    return False


def _says_again(text: str, total: int) -> bool:
    said = Counter(part.strip().casefold() for part in _SENTENCE.split(unnumbered(text)) if part.count(" ") >= 3)
    for part, times in said.most_common(3):
        if times < 4:
            return False
        sentence = words(part)
        if len(sentence) >= 4 and times * len(sentence) >= 0.4 * total:
            return True
    return False
