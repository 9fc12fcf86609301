"""What a policy makes of people who are divided, or who see no difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cai.labels.items import p_of_a
from cai.labels.merge import merge
from cai.labels.policy import Policy, load_policy, names
from cai.records import Preference
from tests.labels.test_axes import judged, label


def after(policy: Policy, *verdicts: str, ai: float = 0.4) -> Preference:
    """What comes of a pair on which so many people said these, and the judge `ai`; other pairs have votes too."""
    rows = [row for row in judged(30) if row.axis == "helpful"]
    first = rows[0]
    if ai < 0.5:
        first = replace(
            first,
            chosen=first.rejected,
            rejected=first.chosen,
            chosen_id=first.rejected_id,
            rejected_id=first.chosen_id,
            p=1 - ai,
        )
    rows = [replace(first, p=max(ai, 1 - ai)), *rows[1:]]
    events = [label(rows[0].comparison_id, "helpful", f"p{n}", said) for n, said in enumerate(verdicts)]
    events += [label(row.comparison_id, "helpful", who, "a") for row in rows[1:20] for who in ("p0", "p1", "p2")]
    found = merge("mine", policy, events, rows)
    return next(row for row in found.preferences if row.comparison_id == rows[0].comparison_id)


def test_a_split_is_a_tie_where_the_policy_says_so() -> None:
    policy = Policy(title="t", method="counts", kappa=0.25, split="tie")
    row = after(policy, "a", "b")
    assert (row.status, row.p, row.source) == ("tie", 0.5, "human")
    assert after(policy, "a", "b", "b").status == "ok"
    assert after(policy.model_copy(update={"split": "quarantine"}), "a", "b").status == "abstain"
    decided = after(policy.model_copy(update={"split": "decide"}), "a", "b")
    assert (decided.status, decided.source) == ("ok", "human+ai")
    assert p_of_a(decided) == pytest.approx((1 + 0.25 * 0.4) / 2.25)


def test_ties_of_people_draw_the_fused_policy_to_a_tie() -> None:
    _, fused = load_policy("fused")
    alone, one, two = (p_of_a(after(fused, *["tie"] * count, ai=0.2)) for count in (0, 1, 2))
    assert alone is not None
    assert one is not None
    assert two is not None
    assert alone < 0.3
    assert 0.47 < one < 0.5
    assert 0.47 < two < 0.5
    mixed, pure = p_of_a(after(fused, "a", "tie")), p_of_a(after(fused, "a"))
    assert mixed is not None
    assert pure is not None
    assert 0.5 < mixed < pure
    assert after(fused, "tie", "tie", ai=0.2).p_tie > 0.9


def test_where_people_see_no_difference_it_is_a_tie_though_the_judge_leans() -> None:
    _, human_first = load_policy("human_first")
    both = after(human_first, "tie", "tie", ai=0.66)
    assert both.status == "tie"
    assert both.p == pytest.approx(1.165 / 2.25)
    assert both.p_tie == pytest.approx(2 / 2.25)
    one = after(human_first, "a", "tie", ai=0.55)  # the judge's quarter of a vote too is no tie
    assert one.status == "ok"
    assert one.p_tie == pytest.approx(1 / 2.25)


def test_what_the_judge_alone_said_to_be_a_tie_or_none_stays_so() -> None:
    """Its label may have been clamped or calibrated since, and then its tie says nothing beside it."""
    name, policy = load_policy("human_first")
    for status in ("ok", "tie"):
        rows = [replace(row, p=0.56, p_tie=0.4, status=status) for row in judged(2)]
        assert {row.status for row in merge(name, policy, [], rows).preferences} == {status}


def test_the_runs_band_holds_for_what_is_merged() -> None:
    name, policy = load_policy("human_first")
    assert {row.status for row in merge(name, policy, [], judged(2), tie_band=0.4).preferences} == {"ok"}
    assert {row.status for row in merge(name, policy, [], judged(2), tie_band=0.45).preferences} == {"tie"}


def test_rows_of_a_prompt_stay_together_and_what_the_judge_left_open_is_not_changed() -> None:
    rows = [replace(row, p=0.5, status="tie") for row in judged(3) if row.axis == "helpful"]
    name, policy = load_policy("human_first")
    events = [label(row.comparison_id, axis, "p", "b") for row in rows for axis in ("helpful", "honest")]
    found = merge(name, policy, events, rows)
    assert [row.prompt_id for row in found.preferences] == [row.prompt_id for row in rows for _ in range(2)]
    assert [row.axis for row in found.preferences] == ["helpful", "honest"] * 3
    assert found.report["changed"] == 0
    assert merge(name, policy, events, [replace(row, p=0.7, status="ok") for row in rows]).report["changed"] == 3


def test_what_the_shipped_policies_say_they_do(tmp_path: Path) -> None:
    splits = {name: load_policy(name)[1].split for name in names()}
    assert splits == {
        "human_first": "quarantine",
        "strict": "quarantine",
        "reliability": "decide",
        "dawid_skene": "decide",
        "fused": "decide",
    }
    mine = tmp_path / "mine.yaml"
    mine.write_text("title: mine\nmethod: counts\nkappa: 0.25\nsplit: tie\n", "utf-8")
    assert after(load_policy(str(mine))[1], "a", "b").status == "tie"


def test_gold_items_are_no_votes_and_weigh_the_people() -> None:
    rows = [row for row in judged(30) if row.axis == "helpful"]
    name, policy = load_policy("reliability")
    # On every pair two people say a and one says b; only gold items tell that the one is right.
    events = [
        label(row.comparison_id, "helpful", who, "b" if who == "right" else "a")
        for row in rows[:15]
        for who in ("right", "poor", "worse")
    ]
    before = merge(name, policy, events, rows)
    checks = [
        replace(
            label(row.comparison_id, "helpful", who, "b" if who == "right" else "a"), gold=True, extra={"gold": "b"}
        )
        for row in rows[15:]
        for who in ("right", "poor", "worse")
    ]
    after_checks = merge(name, policy, [*events, *checks], rows)
    assert after_checks.report["gold"] == 45
    assert after_checks.report["labels"] == before.report["labels"] == 45
    for one, other in zip(before.preferences, after_checks.preferences, strict=True):
        said_a, then = p_of_a(one), p_of_a(other)
        assert said_a is not None
        assert then is not None
        if one.comparison_id in {row.comparison_id for row in rows[:15]}:
            assert said_a > 0.5 > then
        else:
            assert (one.source, other.source) == ("ai", "ai")
