"""What a control or question is about, by its name: `winner_harmless` asks for the verdict on the axis harmless.

In tools where whoever sets up the task names the questions, a name is made of words joined by `_` or `-`: words that
say which kind of question it is, or which answer it is about, and what is left is the axis.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

KINDS = {
    "verdict": ("winner", "comparison", "verdict", "preference", "choice", "rank", "ranker", "ranking"),
    "strength": ("strength",),
    "rating": ("rating", "stars"),
    "note": ("note", "notes", "comment", "comments", "reason", "reasons"),
    "edit": ("edit",),
}
SIDES = {"answer1": "left", "left": "left", "answer2": "right", "right": "right"}
_KIND = {word: kind for kind, words in KINDS.items() for word in words}


@dataclass(frozen=True)
class Named:
    """What a name says: its kind ("" where it says none), axis, and the side it is about ("" for both)."""

    kind: str
    axis: str
    side: str


def named(name: str) -> Named:
    """Read a control's or question's name."""
    kind, side, left = "", "", []
    for word in re.split(r"[_\-. ]+", name.lower()):
        if word in _KIND:
            kind = kind or _KIND[word]
        elif word in SIDES:
            side = side or SIDES[word]
        elif word:
            left.append(word)
    return Named(kind, "_".join(left), side)


def name_of(kind: str, axis: str) -> str:
    """A name that reads back as that kind and axis."""
    return f"{kind}_{axis}" if axis else kind
