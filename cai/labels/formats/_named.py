"""What a control or question is about, by its name: `winner_harmless` asks for the verdict on the axis harmless.

In tools where whoever sets up the task names the questions, a name has its parts joined: a word for the kind of
question first, then the axis in its own spelling (`winner_self-harm`). The kind may also stand last, and a name that
rates or rewrites one answer says which, first or last, joined by `_`: `helpful_rating_answer1`. What is left is the
axis, untouched: it may have such words, hyphens, dots and capitals of its own.
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
ANSWERS = {"answer1": "left", "answer2": "right"}
SIDES = ANSWERS | {"left": "left", "right": "right"}
_SIDED = {"": SIDES, "rating": SIDES, "edit": ANSWERS, "note": ANSWERS}
"""Words for a side, by the kinds of question that can be about one answer."""

_ENDS = (
    re.compile(r"(?P<word>[^_\-. ]+)(?:(?P<joint>[_\-. ])(?P<rest>.*))?", re.DOTALL),
    re.compile(r"(?:(?P<rest>.*)(?P<joint>_))?(?P<word>[^_]+)", re.DOTALL),
)
_KIND = {word: kind for kind, words in KINDS.items() for word in words}


@dataclass(frozen=True)
class Named:
    """What a name says: its kind ("" where it says none), axis, and the side it is about ("" for both)."""

    kind: str
    axis: str
    side: str


def named(name: str) -> Named:
    """Read a control's or question's name."""
    kind, side, axis = "", "", name
    for end in _ENDS:
        while found := end.fullmatch(axis):
            word = found["word"].lower()
            if not kind and word in _KIND:
                kind = _KIND[word]
            elif not side and word in _SIDED.get(kind, {}) and found["joint"] in ("_", None):
                side = SIDES[word]
            else:
                break
            axis = found["rest"] or ""
    return Named(kind, axis, side)


def name_of(kind: str, axis: str) -> str:
    """A name that reads back as that kind and axis."""
    return f"{kind}_{axis}" if axis else kind
