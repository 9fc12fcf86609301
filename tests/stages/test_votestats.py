from __future__ import annotations

import json
from typing import Any

import pytest

from cai.errors import InputError
from cai.records import Candidate, Comparison, Group, Prompt, Vote
from cai.stages.prefer import Rule, preferences
from cai.stages.votestats import VoteTally, vote_report

GROUP = Group.make(Prompt.make("Hi"), [Candidate("x", "one"), Candidate("y", "two"), Candidate("z", "three")])
PAIRS = GROUP.comparisons()


def vote(of: Comparison, order: str, p_a: float | None, *, judge: str = "j", **fields: Any) -> Vote:
    given: dict[str, Any] = {"principle_ids": (), "axis": ""} | fields
    key = f"{of.id}-{order}-{judge}-{given['principle_ids']}"
    return Vote(
        id=key, comparison_id=of.id, group_id=of.group_id, judge=judge, judge_id=judge, order=order, p_a=p_a, **given
    )


def test_the_numbers_of_one_judge_by_hand() -> None:
    votes = [
        vote(PAIRS[0], "ab", 0.9, mass=0.8),  # first 0.9
        vote(PAIRS[0], "ba", 0.3, mass=0.6),  # first 0.7; a flip
        vote(PAIRS[1], "ab", 0.8, mass=1.0),  # first 0.8
        vote(PAIRS[1], "ba", 0.6),  # first 0.4; no flip
        vote(PAIRS[2], "ab", 0.2, p_tie=0.6),  # 0.5: a tie
        vote(PAIRS[2], "ba", None, mass=0.1, error="low_mass"),
    ]
    labels = preferences(GROUP, votes, Rule())
    assert [label.status for label in labels] == ["ok", "ok", "abstain"]
    stats = vote_report([(GROUP, votes, labels)]).overall
    assert (stats.votes, stats.verdicts, stats.failures) == (6, 5, {"low_mass": 1})
    assert (stats.ordered, stats.first_slot_rate) == (5, 3.5 / 5)
    assert stats.position_bias == pytest.approx((0.4 + 0.2 + 0.3 - 0.1 + 0.0) / 5)
    assert (stats.both_orders, stats.flip_rate) == (2, 0.5)
    assert stats.tie_rate == 1 / 5
    assert stats.with_mass == 4
    assert stats.mean_mass == pytest.approx(2.5 / 4)
    assert stats.decisiveness == pytest.approx((0.4 + 0.2 + 0.3 + 0.1 + 0.0) / 5)
    # Labels: a of the first pair (0.6), a of the second (0.7); the third has none.
    assert (stats.labelled, stats.agreement) == (4, 3 / 4)


def test_agreement_knows_which_answer_was_chosen_when_it_is_the_second() -> None:
    votes = [vote(PAIRS[0], "ab", 0.1), vote(PAIRS[0], "ab", 0.7, judge="k"), vote(PAIRS[0], "", 0.5, judge="l")]
    report = vote_report([(GROUP, votes, preferences(GROUP, votes, Rule()))])
    assert {name: stats.agreement for name, stats in report.by_judge.items()} == {"j": 1.0, "k": 0.0, "l": 0.5}
    assert report.overall.agreement == 0.5


def test_how_far_the_judges_of_a_panel_differ() -> None:
    votes = [
        *(vote(PAIRS[0], order, 1.0) for order in ("ab", "ba")),
        vote(PAIRS[0], "ab", 0.0, judge="k"),  # one bit apart
        vote(PAIRS[1], "ab", 0.7),
        vote(PAIRS[1], "ab", 0.7, judge="k"),  # of one mind
        vote(PAIRS[2], "ab", 0.7),
        vote(PAIRS[2], "ab", None, judge="k", error="low_mass"),  # alone
    ]
    report = vote_report([(GROUP, votes, ())])
    assert report.panels == 2
    assert report.disagreement == pytest.approx(0.5)
    alone = vote_report([(GROUP, votes[:2], ())])
    assert (alone.panels, alone.disagreement) == (0, None)


def test_votes_without_an_order_do_not_count_for_position() -> None:
    stats = vote_report([(GROUP, [vote(PAIRS[0], "", 0.9)], ())]).overall
    assert (stats.votes, stats.ordered, stats.first_slot_rate, stats.position_bias) == (1, 0, None, None)
    assert (stats.both_orders, stats.flip_rate, stats.labelled, stats.agreement) == (0, None, 0, None)


def test_a_rate_of_nothing_is_none() -> None:
    stats = VoteTally().report().overall
    assert {value for value in stats.row().values() if value != {}} == {0, None}


def test_by_principle_a_vote_counts_for_each_and_the_judges_own_question_has_no_name() -> None:
    votes = [
        vote(PAIRS[0], "ab", 0.9, principle_ids=("x", "y")),
        vote(PAIRS[0], "ab", 0.8, principle_ids=("x",)),
        vote(PAIRS[0], "ab", 0.7),
    ]
    report = vote_report([(GROUP, votes, ())])
    assert {name: stats.votes for name, stats in report.by_principle.items()} == {"": 1, "x": 2, "y": 1}
    assert report.overall.votes == 3
    assert report.by_principle["x"].decisiveness == pytest.approx(0.35)


def test_groups_add_up_and_a_vote_given_twice_counts_once() -> None:
    tally = VoteTally()
    votes = [vote(PAIRS[0], "ab", 0.9), vote(PAIRS[0], "ab", 0.9)]
    tally.add(GROUP, votes)
    tally.add(GROUP, votes)
    assert tally.report().overall.votes == 2


def test_the_report_is_json() -> None:
    votes = [vote(PAIRS[0], "ab", 0.9)]
    row = vote_report([(GROUP, votes, preferences(GROUP, votes, Rule()))]).row()
    assert json.loads(json.dumps(row)) == row
    assert set(row) == {"overall", "by_judge", "by_principle", "panels", "disagreement"}


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(InputError, match="not a probability"):
        vote_report([(GROUP, [vote(PAIRS[0], "ab", 7.0)], ())])


def test_what_a_tournament_inferred_is_no_second_judge() -> None:
    asked = [vote(PAIRS[0], order, 0.9) for order in ("ab", "ba")]
    inferred = vote(PAIRS[1], "", 0.5, judge="tournament", raw={"inferred": True})
    beside = vote(PAIRS[0], "", 0.1, judge="tournament", raw={"inferred": True})
    unlinked = vote(PAIRS[2], "", None, judge="tournament", raw={"inferred": True}, error="unconnected")
    votes = [*asked, inferred, beside, unlinked]
    report = vote_report([(GROUP, votes, preferences(GROUP, votes, Rule()))])
    assert list(report.by_judge) == ["j"]
    assert (report.panels, report.disagreement) == (0, None)
    assert report.overall.votes == 2
    assert report.overall.decisiveness == pytest.approx(0.4)
    assert report.overall.failures == {}


def test_judges_differ_by_their_labels_and_not_by_their_single_votes() -> None:
    votes = [
        vote(PAIRS[0], "", 1.0, principle_ids=("p",), weight=3.0),
        vote(PAIRS[0], "", 0.0, principle_ids=("q",), weight=1.0),
        vote(PAIRS[0], "", 0.75, judge="k"),  # as the first one says by the weights of its principles
        vote(PAIRS[1], "ab", 0.9),
        vote(PAIRS[1], "ba", None, error="low_mass"),  # no label: an order is missing
        vote(PAIRS[1], "", 0.1, judge="k"),
    ]
    tally = VoteTally(Rule())
    tally.add(GROUP, votes)
    report = tally.report()
    assert report.panels == 1
    assert report.disagreement == pytest.approx(0, abs=1e-9)
    lenient = VoteTally(Rule(need_both=False))
    lenient.add(GROUP, votes)
    assert lenient.report().panels == 2
