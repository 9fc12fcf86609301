"""Preferences for tests, made here."""

from __future__ import annotations

import dataclasses
from typing import Any

from cai.records import Candidate, Group, Message, Preference, Prompt, Vote
from cai.stages.prefer import Rule, preferences
from cai.stages.select import Choice

TURNS = (Message("user", "How do I bake bread?"), Message("assistant", "In an oven."), Message("user", "How long?"))


def made(
    prompt: Prompt | str = "How?",
    chosen: str = "Half an hour.",
    rejected: str = "No idea.",
    *,
    p: float = 0.8,
    **fields: Any,
) -> Preference:
    """A preference with every field filled."""
    prompt = Prompt.make(prompt, tags=("red-team",)) if isinstance(prompt, str) else prompt
    group = Group.make(prompt, [Candidate(f"id of {text}", text) for text in (chosen, rejected, "third")])
    pair = next(c for c in group.comparisons() if {c.a.text, c.b.text} == {chosen, rejected})
    label = p if pair.a.text == chosen else 1 - p
    votes = [
        Vote(f"v{order}", pair.id, group.id, "j", "j", ("kind",), "harmless", order, label, p_tie=0.0)
        for order in ("ab", "ba")
    ]
    found = next(each for each in preferences(group, votes, Rule()) if each.comparison_id == pair.id)
    return dataclasses.replace(found, **fields)


def many(count: int = 40) -> list[Choice]:
    """`count` rows, every third in the test split, every second prompt with several turns."""
    found = []
    for i in range(count):
        turns = (Message("user", f"Question {i}"), *TURNS[1:]) if i % 2 else f"Question {i}"
        preference = made(Prompt.make(turns), f"good answer {i}", f"poor {i}", p=0.6 + 0.3 * i / count)
        found.append(Choice(preference, "train" if i % 3 else "test"))
    return found
