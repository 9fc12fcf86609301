"""What people are shown: the comparisons of a run, each once, with a hash of what a person would read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cai.errors import InputError
from cai.records import Candidate, HumanLabel, Messages, Preference, comes_first, content_hash


@dataclass(frozen=True, slots=True)
class Item:
    """One comparison to label, in its own (unswapped) order."""

    comparison_id: str
    group_id: str
    prompt_id: str
    messages: Messages
    a: Candidate
    b: Candidate

    @property
    def text_hash(self) -> str:
        return text_hash(self.messages, self.a.text, self.b.text)


def text_hash(messages: Messages, a: str, b: str) -> str:
    """Of all that a person reads; a label whose hash differs was given to other texts."""
    return content_hash([[m.role, m.content] for m in messages], a, b, length=16)


def p_of_a(preference: Preference) -> float | None:
    """The soft label of the comparison's own `a`; None where there is no verdict."""
    if preference.p is None:
        return None
    return (
        preference.p if comes_first(preference.prompt_id, preference.chosen, preference.rejected) else 1 - preference.p
    )


def items_of(preferences: Iterable[Preference]) -> Iterator[Item]:
    """The comparisons that preferences are about, whatever their axes, each once, in their order.

    Raises:
        InputError: two rows with one comparison id have different texts.
    """
    seen: dict[str, str] = {}
    for row in preferences:
        chosen, rejected = Candidate(row.chosen_id, row.chosen), Candidate(row.rejected_id, row.rejected)
        first = comes_first(row.prompt_id, row.chosen, row.rejected)
        a, b = (chosen, rejected) if first else (rejected, chosen)
        item = Item(row.comparison_id, row.group_id, row.prompt_id, row.messages, a, b)
        known = seen.get(item.comparison_id)
        if known is None:
            seen[item.comparison_id] = item.text_hash
            yield item
        elif known != item.text_hash:
            raise InputError("two rows have different texts", where=f"comparison {item.comparison_id}")


def by_id(items: Iterable[Item]) -> dict[str, Item]:
    """Items by their comparison's id."""
    return {item.comparison_id: item for item in items}


def principles_of(preferences: Iterable[Preference]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The principles that the judge was asked about, by comparison and axis: each axis is asked by its own."""
    return {(row.comparison_id, row.axis): row.principle_ids for row in preferences}


def asked(principles: Mapping[tuple[str, str], tuple[str, ...]], comparison_id: str, axis: str) -> tuple[str, ...]:
    """The principles behind a label: of its own axis, or of the judge's overall question where that is all there is."""
    return principles.get((comparison_id, axis), principles.get((comparison_id, ""), ()))


def is_current(label: HumanLabel, items: Mapping[str, Item]) -> bool:
    """Whether a label was given to the texts that stand there now; one that does not say is believed."""
    item = items.get(label.comparison_id)
    return item is not None and label.text_hash in ("", item.text_hash)
