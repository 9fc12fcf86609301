"""What a row of another tool says: a verdict in the order in which the answers were shown, before anything is looked
up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cai.errors import InputError

SHOWN = ("left", "right", "tie", "both_bad", "abstain")
WORDS = {
    **dict.fromkeys(("left", "a", "1", "model_a", "answer1", "answer 1", "response 1", "output_1", "first"), "left"),
    **dict.fromkeys(("right", "b", "2", "model_b", "answer2", "answer 2", "response 2", "output_2", "second"), "right"),
    **dict.fromkeys(("tie", "equal", "same", "0", "both", "both good", "tie (both good)"), "tie"),
    **dict.fromkeys(("both_bad", "both bad", "bothbad", "tie (bothbad)", "tie (both bad)", "neither"), "both_bad"),
    **dict.fromkeys(("abstain", "skip", "unsure", "cannot tell", "none", ""), "abstain"),
}
"""The words that tools use for a verdict, in lower case."""


@dataclass(frozen=True)
class Said:
    """One verdict of one person, as the file has it.

    Attributes:
        pair: our comparison id, or "" where the file does not carry it; then the texts tell.
        left, right: the answers as shown, None where the file has not got them.
        verdict: one of `SHOWN`.
        strength: 1 (left much better) to 7 (right much better), 4 equal.
        order: `ab` or `ba`, which of the comparison's own answers stood left; "" where only the texts can tell.
        status: as `HumanLabel.status`.
        key: the source's own id of this verdict.
        traps: what was met in reading it, words of `exchange.TRAPS`.
    """

    pair: str
    verdict: str
    annotator: str
    left: str | None = None
    right: str | None = None
    prompt: str | None = None
    strength: int | None = None
    order: str = ""
    axis: str = ""
    seconds: float | None = None
    note: str = ""
    ts: str = ""
    status: str = "submitted"
    key: str = ""
    edit: str = ""
    gold: bool = False
    traps: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def word(value: Any) -> str:
    """A verdict from a tool's word for it.

    Raises:
        InputError: it is none.
    """
    text = str(value).strip().lower() if value is not None else ""
    if text not in WORDS:
        raise InputError(f"{str(value)[:40]!r} is no verdict", mend="left, right, tie, both_bad or abstain")
    return WORDS[text]


def from_strength(strength: int) -> str:
    """The verdict that a strength of 1 to 7 implies."""
    return "left" if strength < 4 else "right" if strength > 4 else "tie"


def seven(value: Any) -> int | None:
    """A strength of 1 to 7, or None where there is none.

    Raises:
        InputError: it is not a whole number from 1 to 7.
    """
    if value is None or value == "":
        return None
    number = as_number(value, "strength")
    if number != int(number) or not 1 <= number <= 7:
        raise InputError(f"a strength of {value} is not a whole number from 1 to 7")
    return int(number)


def as_number(value: Any, name: str) -> float:
    """A number.

    Raises:
        InputError: it is none.
    """
    try:
        found = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {str(value)[:40]!r}, not a number") from error
    if found != found or found in (float("inf"), float("-inf")):
        raise InputError(f"{name} is not a finite number")
    return found


def seconds_of(value: Any) -> float | None:
    """Seconds, or None where nothing is said."""
    return None if value is None or value == "" else as_number(value, "the time taken")


def text(row: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    """A column's text.

    Raises:
        InputError: it is needed and not there.
    """
    value = row.get(name)
    if value is None or value == "":
        if needed:
            raise InputError(f"has no {name}")
        return ""
    return value if isinstance(value, str) else str(value)
