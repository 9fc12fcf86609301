"""What a row of another tool says: a verdict in the order in which the answers were shown, before anything is looked
up; and how cells of such rows are read, whatever stands in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cai.errors import InputError
from cai.labels.shown import prompt_text
from cai.records import messages_from

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
        gold: the right verdict (`left`, `right`, ...) where it was asked to check the person; `unknown` where only that
            is known.
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
    gold: str = ""
    traps: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


# --- cells ------------------------------------------------------------------------------------------------------------


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


def agreed(verdict: str, strength: int | None) -> int | None:
    """A strength that goes with a verdict; None where there is none, or it has no meaning (both bad, abstain).

    Raises:
        InputError: it says something else.
    """
    if strength is None or verdict in ("both_bad", "abstain"):
        return None
    if from_strength(strength) != verdict:
        raise InputError(f"the verdict is {verdict}, but a strength of {strength} says {from_strength(strength)}")
    return strength


def seven(value: Any) -> int | None:
    """A strength of 1 to 7, or None where there is none.

    Raises:
        InputError: it is not a whole number from 1 to 7.
    """
    if value is None or value == "":
        return None
    number = as_number(value, "strength")
    if number != int(number) or not 1 <= number <= 7:
        raise InputError(f"a strength of {str(value)[:40]} is not a whole number from 1 to 7")
    return int(number)


def as_number(value: Any, name: str) -> float:
    """A number.

    Raises:
        InputError: it is none.
    """
    try:
        found = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is {str(value)[:40]!r}, not a number") from error
    if found != found or found in (float("inf"), float("-inf")):
        raise InputError(f"{name} is {str(value)[:40]!r}, not a finite number")
    return found


def seconds_of(value: Any) -> float | None:
    """Seconds, or None where nothing is said.

    Raises:
        InputError: not a number, or less than none.
    """
    if value is None or value == "":
        return None
    found = as_number(value, "the time taken")
    if found < 0:
        raise InputError(f"the time taken is {found:g} seconds")
    return found


def as_text(value: Any, name: str) -> str:
    """The text of a cell; "" where there is none. Numbers are taken as they are written.

    Raises:
        InputError: it is a list or an object.
    """
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return value if isinstance(value, str) else str(value)
    raise InputError(f"{name} is {str(value)[:40]!r}, not a text")


def text(row: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    """A column's text.

    Raises:
        InputError: it is needed and not there, or no text.
    """
    found = as_text(row.get(name), name)
    if needed and not found.strip():
        raise InputError(f"has no {name}")
    return found


def first_text(row: Mapping[str, Any], *names: str) -> str:
    """The text of the first of several columns that has one; "" where none has.

    Raises:
        InputError: it is no text.
    """
    return next((found for name in names if (found := text(row, name, needed=False))), "")


def answer(row: Mapping[str, Any], name: str) -> str | None:
    """A text as it was shown; None where the file has not got it.

    Raises:
        InputError: it is no text.
    """
    return text(row, name, needed=False) or None


def order(row: Mapping[str, Any], *names: str) -> str:
    """`ab`, `ba`, or "" where the row does not say.

    Raises:
        InputError: it says something else.
    """
    found = first_text(row, *(names or ("order",)))
    if found not in ("", "ab", "ba"):
        raise InputError(f"the order is {found[:20]!r}, not ab or ba")
    return found


def conversation(value: Any, name: str) -> str | None:
    """A prompt as one text, from a text or a list of turns; None where there is none.

    Raises:
        InputError: it is neither.
    """
    if value is None or value == "" or value == []:
        return None
    return value if isinstance(value, str) else prompt_text(messages_from(value, where=name))


def listed(value: Any, name: str) -> Sequence[Any]:
    """A list; empty where there is none.

    Raises:
        InputError: it is something else.
    """
    if value is None or value == "":
        return ()
    if not isinstance(value, list):
        raise InputError(f"{name} is {str(value)[:40]!r}, not a list")
    return value


def when(value: Any) -> str:
    """A time in UTC, ISO 8601, from that (UTC where it names no zone) or seconds since 1970; "" where none is said.

    What cannot be read comes back as it is: see `is_time`.

    Raises:
        InputError: it is a list or an object.
    """
    told = as_text(value, "the time").strip()
    try:
        if told.replace(".", "", 1).isdigit() and float(told) > _EPOCH:
            seconds = float(told)
            found = datetime.fromtimestamp(seconds / 1000 if seconds > 1000 * _EPOCH else seconds, UTC)
        else:
            found = datetime.fromisoformat(told)
    except (ValueError, OverflowError, OSError):
        return told
    try:
        utc = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        return told
    return utc.isoformat().removesuffix("+00:00") + "Z"


def is_time(told: str) -> bool:
    """Whether a time is one that can be compared with others."""
    return len(told) >= len("2026-01-01T00:00:00Z") and told[10] == "T" and told.endswith("Z")


_EPOCH = 100_000_000
"""A number above this is seconds since 1970, above a thousand times this milliseconds; below, a year or nothing."""
