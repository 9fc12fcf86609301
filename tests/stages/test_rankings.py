"""Rankings of a group are made of its preferences."""

from __future__ import annotations

from typing import Any

from cai.records import Vote
from cai.stages.prefer import Rule, preferences, rankings
from tests.stages.test_prefer import group, vote

RANKED = group(3)
PLACE = {frozenset((pair.a.id, pair.b.id)): pair for pair in RANKED.comparisons()}


def better(one: str, other: str, p: float, **fields: Any) -> Vote:
    pair = PLACE[frozenset((one, other))]
    return vote(p if pair.a.id == one else 1 - p, of=pair, **fields)


def ranked(*votes: Vote, **rule: Any) -> dict[str, tuple[str, ...]]:
    return rankings(RANKED, votes, preferences(RANKED, votes, Rule(**rule)))


def test_a_ranking_is_of_the_preferences_and_follows_the_panels_rule() -> None:
    # One member is sure of r2, and asks twice (another judge's rotations are four); two are mildly for r0.
    sure = [
        better(one, other, p, judge="sure", name=name)
        for one, other, p in (("r2", "r0", 1.0), ("r2", "r1", 1.0), ("r1", "r0", 0.9))
        for name in "xy"
    ]
    mild = [
        better(one, other, 0.6, judge=judge)
        for judge in ("mild", "meek")
        for one, other in (("r0", "r1"), ("r0", "r2"), ("r1", "r2"))
    ]
    assert ranked(*sure, *mild, panel="median") == {"": ("r0", "r1", "r2")}
    assert ranked(*sure, *mild, panel="mean")[""][0] == "r2"


def test_the_number_of_a_judges_votes_does_not_weigh_in_a_ranking() -> None:
    many = [better("r0", "r1", 0.8, judge="many", name=name) for name in "abcd"]
    one = better("r1", "r0", 0.9, judge="one")
    (found,) = [each for each in preferences(RANKED, [*many, one], Rule()) if each.p is not None]
    assert (found.chosen_id, found.p) == ("r1", 0.55)
    assert ranked(*many, one)[""].index("r1") < ranked(*many, one)[""].index("r0")


def test_rankings_are_by_axis_and_leave_out_what_was_inferred() -> None:
    votes = [
        better("r2", "r1", 0.9, axis="x"),
        better("r0", "r2", 0.99, axis="x", judge="tournament", raw={"inferred": True}),
        better("r1", "r0", 0.9, axis="y"),
    ]
    assert ranked(*votes) == {"x": ("r2", "r0", "r1"), "y": ("r1", "r2", "r0")}
    assert ranked() == {}
