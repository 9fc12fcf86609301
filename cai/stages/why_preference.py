"""The story of a preference: the two answers, every vote on them, what the votes came to, and whether it is a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cai.records import Preference, Vote, comes_first
from cai.stages.select import REASONS, Choice
from cai.stages.why import is_named, visible

if TYPE_CHECKING:  # rich is only needed to draw
    from rich.console import Group, RenderableType

MOST = 8
"""Preferences that are drawn in full; an answer can be in many."""


@dataclass(frozen=True)
class Decision:
    """One preference, with the votes that it was made from and what became of it."""

    choice: Choice
    votes: tuple[Vote, ...]

    @property
    def sentence(self) -> str:
        """Whether it is trained on, for people."""
        if self.choice.split is not None:
            return f"in the preference data, {self.choice.split} split"
        return f"not in the preference data: {REASONS[self.choice.reason]}"

    def row(self) -> dict[str, Any]:
        """JSON object: the records as they are stored."""
        return {
            "preference": self.choice.preference.row(),
            "votes": [{**vote.row(), "raw": dict(vote.raw)} for vote in self.votes],
            "split": self.choice.split,
            "reason": self.choice.reason,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Decisions:
    """All preferences that an id names or is part of."""

    id: str
    found: tuple[Decision, ...]
    titles: Mapping[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """JSON object."""
        return {"id": self.id, "kind": "preference", "decisions": [each.row() for each in self.found]}


def decisions(
    id: str, choices: Iterable[Choice], votes: Iterable[Vote], *, titles: Mapping[str, str] | None = None
) -> Decisions | None:
    """The preferences that `id` (or its beginning) names: by their own id, or that of comparison, group or answer.

    `choices` and `votes` are gone through once each. None where there is none.
    """
    asked = id.strip()

    def fits(preference: Preference) -> bool:
        known = (preference.id, preference.comparison_id, preference.group_id)
        return any(is_named(asked, name) for name in (*known, preference.chosen_id, preference.rejected_id))

    kept = [choice for choice in choices if fits(choice.preference)]
    if not kept:
        return None
    wanted = {name for choice in kept for name in choice.preference.votes}
    by_id = {vote.id: vote for vote in votes if vote.id in wanted}
    found = tuple(
        Decision(choice, tuple(by_id[name] for name in choice.preference.votes if name in by_id)) for choice in kept
    )
    return Decisions(asked, found, titles or {})


def render(told: Decisions) -> Group:
    """For a terminal. Texts of models and users are shown literally: no markup, no control codes."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    def panel(title: str, text: str) -> Panel:
        return Panel(Text(visible(text)), title=Text(visible(title)), title_align="left", border_style="dim")

    def body() -> Iterator[RenderableType]:
        for decision in told.found[:MOST]:
            preference = decision.choice.preference
            yield Text(visible(f"preference {preference.id}"), style="bold")
            for turn in preference.messages:
                yield panel(turn.role, turn.content)
            p = "no verdict" if preference.p is None else f"p = {preference.p:.3f}"
            yield panel(f"chosen, {p}", preference.chosen)
            yield panel("rejected", preference.rejected)
            yield _votes(decision, told.titles)
            yield Text(visible(decision.sentence), style="green" if decision.choice.split else "yellow")
        if len(told.found) > MOST:
            yield Text(f"and {len(told.found) - MOST} more; give a preference's own id, or --json")

    return Group(*body())


def _votes(decision: Decision, titles: Mapping[str, str]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("judge", "principle", "order", "p(chosen)", "p(tie)", "mass"):
        table.add_column(name, justify="left" if name in ("judge", "principle", "order") else "right")
    preference = decision.choice.preference
    chosen_is_a = comes_first(preference.prompt_id, preference.chosen, preference.rejected)  # what p_a is about
    for vote in decision.votes:
        names = ", ".join(f"{name} ({titles[name]})" if name in titles else name for name in vote.principle_ids)
        p = vote.p
        told = (vote.error or "-") if p is None else f"{p if chosen_is_a else 1 - p:.3f}"
        mass = "-" if vote.mass is None else f"{vote.mass:.2f}"
        cells = (vote.judge, names or "(general question)", vote.order or "-", told, f"{vote.p_tie:.2f}", mass)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table
