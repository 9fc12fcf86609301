"""Votes come to labels: questions, judges, groups, and the rule that says how."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from cai.engine import Completion, Request
from cai.errors import InputError
from cai.judges import listwise, logprob
from cai.judging import Question
from cai.records import Candidate, Comparison, Group, Message, Preference, Prompt, Vote
from cai.stages.prefer import Rule, preferences, rankings


def group(count: int = 2, **fields: Any) -> Group:
    prompt = Prompt.make("How do I bake bread?", **fields)
    return Group.make(prompt, [Candidate(f"r{i}", f"answer {i}") for i in range(count)])


PAIR = group()
(COMPARISON,) = PAIR.comparisons()


def vote(
    p_a: float | None,
    order: str = "ab",
    *,
    of: Comparison = COMPARISON,
    judge: str = "j",
    name: str = "",
    **fields: Any,
) -> Vote:
    given: dict[str, Any] = {"principle_ids": (), "axis": "", "error": None if p_a is not None else "low_mass"}
    given |= fields
    key = f"{of.id}-{judge}-{order}-{given['principle_ids']}-{given['axis']}-{name}"
    return Vote(
        id=key,
        comparison_id=of.id,
        group_id=of.group_id,
        judge=judge,
        judge_id=f"id of {judge}",
        order=order,
        p_a=p_a,
        **given,
    )


def rotation(odds: float, order: str = "ab", **fields: Any) -> Vote:
    """Of a list: `odds` are those that a is better, in logits."""
    raw = {"rotation": 0, "letters": ["A", "B"], "logprobs": [odds - 3.0, -3.0]}
    return vote(1 / (1 + math.exp(-odds)), order, raw=raw, **fields)


def label(*votes: Vote, **rule: Any) -> Preference:
    (found,) = preferences(PAIR, votes, Rule(**rule))
    return found


# --- one question


def test_both_orders_are_averaged_and_the_better_answer_is_chosen() -> None:
    found = label(vote(0.9), vote(0.5, "ba"))
    assert (found.p, found.margin, found.status) == (0.7, 0.4, "ok")
    assert (found.chosen, found.chosen_id) == (COMPARISON.a.text, COMPARISON.a.id)
    assert (found.rejected, found.rejected_id) == (COMPARISON.b.text, COMPARISON.b.id)
    assert found.votes == tuple(sorted([vote(0.9).id, vote(0.5, "ba").id]))


def test_below_a_half_chosen_and_rejected_change_places() -> None:
    found = label(vote(0.2, p_tie=0.1))
    assert (found.chosen, found.rejected) == (COMPARISON.b.text, COMPARISON.a.text)
    assert (found.p, found.p_tie) == (0.75, 0.1)
    assert (found.agreement, found.flipped) == (1.0, 0.0)


def test_a_judge_that_only_looks_at_the_slot_says_nothing() -> None:
    """Always 0.9 for the first: 0.9 for a in its own order, 0.1 in the other."""
    found = label(vote(0.9), vote(0.1, "ba"))
    assert (found.p, found.status, found.flipped, found.agreement) == (0.5, "tie", 1.0, 0.5)
    assert found.chosen == COMPARISON.a.text  # the comparison's own order stands


def test_an_error_is_missing_and_never_a_half() -> None:
    failed = vote(None, "ba")
    assert label(vote(0.9), failed).status == "abstain"
    found = label(vote(0.9), failed, need_both=False)
    assert (found.p, found.status) == (0.9, "ok")
    assert len(found.votes) == 2  # what was asked
    assert label(vote(0.8, "ba")).p == 0.8  # a judge that asks in one order needs no other
    # A verdict beside an error word is not believed.
    assert label(vote(0.9, error="unparsed")).status == "abstain"


def test_a_failed_question_leaves_the_others_their_weight() -> None:
    sound = [vote(0.8, order, principle_ids=("x",)) for order in ("ab", "ba")]
    broken = [vote(0.0, principle_ids=("y",)), vote(None, "ba", principle_ids=("y",))]
    found = label(*sound, *broken)
    assert (found.p, found.agreement) == (0.8, 1.0)
    assert found.principle_ids == ("x",)


def test_no_verdict_is_an_abstention_without_a_probability() -> None:
    for found in (label(vote(None)), label()):
        assert (found.p, found.margin, found.agreement, found.flipped, found.status) == (None, 0.0, 0.0, 0.0, "abstain")


def test_all_votes_of_a_list_count_alike() -> None:
    """A listwise judge gives a pair 2 votes in one order and 1 in the other; the mean of their log-odds is free of the
    places' biases."""
    votes = [rotation(3.0, name="0"), rotation(1.5, name="1"), rotation(-1.5, "ba")]
    assert label(*votes).p == pytest.approx(1 / (1 + math.exp(-1)))
    assert label(*votes).flipped == 1.0  # 2.25 and -1.5
    # Equal answers, and places that are preferred by 4, 2 and 0 logits: the mean of the probabilities would be 0.593.
    graded = [rotation(2.0, name="0"), rotation(2.0, name="1"), rotation(-4.0, "ba")]
    assert (label(*graded).p, label(*graded).status) == (0.5, "tie")


def test_a_rotation_counts_for_no_more_than_a_label_can_say() -> None:
    """A choice that the model rules out stands at -100; no other rotation could make up for that."""
    assert label(rotation(100.0), rotation(-40.0, "ba")).p == 0.5
    assert 0.5 < (label(rotation(100.0), rotation(-26.0, "ba")).p or 0) < 0.8


def test_the_two_orders_of_a_pair_are_averaged_as_probabilities() -> None:
    assert label(vote(0.98), vote(0.5, "ba")).p == 0.74  # of the mean log-odds: 0.875


def test_a_vote_given_twice_counts_once() -> None:
    assert label(vote(1.0), vote(1.0), vote(0.0, judge="k")).p == 0.5


def test_a_tie_counts_half_and_is_kept_apart() -> None:
    found = label(vote(0.5, p_tie=0.3), vote(0.3, "ba", p_tie=0.5))
    assert (found.p, found.p_tie) == (0.6, 0.4)  # 0.65 and 0.55


# --- several questions and judges


def test_questions_are_averaged_by_weight_within_a_judge_and_judges_alike() -> None:
    votes = [
        vote(1.0, principle_ids=("x",), weight=3.0),
        vote(0.2, principle_ids=("y",), weight=1.0),  # judge j: (3 * 1 + 0.2) / 4 = 0.8
        vote(0.4, judge="k"),
    ]
    found = label(*votes)
    assert found.p == 0.6
    assert found.agreement == pytest.approx(1 / 3)
    assert found.principle_ids == ("x", "y")


def test_a_question_of_weight_0_is_not_asked() -> None:
    silent = vote(0.0, principle_ids=("x",), weight=0.0)
    assert label(vote(0.8), silent).p == 0.8
    assert label(silent).status == "abstain"
    assert label(silent).agreement == 0.0


@pytest.mark.parametrize(
    ("panel", "expected"),
    [("mean", 0.7), ("median", 0.8), ("majority", 2 / 3), ("log_odds", 24 ** (1 / 3) / (1 + 24 ** (1 / 3)))],
)
def test_the_panel_decides_how_judges_are_combined(panel: str, expected: float) -> None:
    # The odds are 9, 4 and 2/3; their product is 24.
    votes = [vote(0.9, judge="a"), vote(0.8, judge="b"), vote(0.4, judge="c")]
    assert label(*votes, panel=panel).p == pytest.approx(expected, abs=1e-9)


def test_the_part_said_to_be_a_tie_fits_in_what_the_panel_leaves() -> None:
    votes = [vote(0.5, judge=j, p_tie=0.4) for j in "abc"]
    found = label(*votes, panel="majority")
    assert (found.p, found.p_tie) == (1.0, 0.0)


def test_two_members_of_one_name_and_different_options_are_two_judges() -> None:
    other = dataclasses.replace(vote(0.2, name="o"), judge_id="another")
    votes = [vote(1.0), vote(1.0, name="1", principle_ids=("x",)), other]
    assert label(*votes).p == 0.6


def test_axes_never_merge() -> None:
    votes = [vote(0.9, axis="helpful"), vote(0.2, axis="harmless")]
    harmless, helpful = preferences(PAIR, votes, Rule())
    assert (harmless.axis, harmless.chosen, harmless.p) == ("harmless", COMPARISON.b.text, 0.8)
    assert (helpful.axis, helpful.chosen, helpful.p) == ("helpful", COMPARISON.a.text, 0.9)
    assert harmless.id != helpful.id


def test_axes_that_were_asked_about_abstain_where_nothing_is_said() -> None:
    found = preferences(PAIR, [vote(0.9, axis="x")], Rule(), axes=("x", "y"))
    assert [(each.axis, each.status) for each in found] == [("x", "ok"), ("y", "abstain")]


# --- groups


@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_pair_of_a_group_gives_one_row_and_the_group_weighs_1(count: int) -> None:
    many = group(count, tags=("red-team",))
    votes = [vote(0.9, of=each) for each in many.comparisons()[1:]]
    found = preferences(many, votes, Rule())
    assert [each.comparison_id for each in found] == [each.id for each in many.comparisons()]
    assert sum(each.weight for each in found) == pytest.approx(1)
    # A missing verdict does not make the others weigh more.
    assert [each.status for each in found] == ["abstain"] + ["ok"] * (len(found) - 1)
    assert {each.weight for each in found} == {1 / len(found)}
    assert all(each.group_id == many.id and each.tags == ("red-team",) and each.source == "ai" for each in found)


def test_a_vote_on_another_group_is_refused() -> None:
    with pytest.raises(InputError, match="not on this group"):
        label(vote(0.5, of=group(3).comparisons()[2]))
    with pytest.raises(InputError, match="not on this group"):
        preferences(PAIR, [vote(0.9, axis="x")], Rule(), axes=("y",))


@pytest.mark.parametrize(
    ("p_a", "p_tie"), [(float("nan"), 0.0), (1.2, 0.0), (-0.1, 0.0), (0.9, 0.4), (0.5, float("nan"))]
)
def test_what_is_no_probability_is_refused(p_a: float, p_tie: float) -> None:
    with pytest.raises(InputError, match="not a probability"):
        label(vote(p_a, p_tie=p_tie))


def test_two_answers_with_one_text_are_refused() -> None:
    same = Group("g", PAIR.prompt, (Candidate("x", "same"), Candidate("y", "same")))
    with pytest.raises(InputError, match="same text"):
        preferences(same, [], Rule())


# --- the rule


def test_a_label_within_the_band_is_a_tie_and_keeps_its_probability() -> None:
    found = label(vote(0.55), tie_band=0.1)
    assert (found.p, found.status, found.chosen) == (0.55, "tie", COMPARISON.a.text)
    assert label(vote(0.45), tie_band=0.1).chosen == COMPARISON.b.text
    assert label(vote(0.6), tie_band=0.1).status == "ok"  # the band's edge is outside


def test_where_a_tie_is_likelier_than_either_answer_it_is_one() -> None:
    found = label(vote(0.3, p_tie=0.5))
    assert (found.p, found.p_tie, found.status, found.chosen) == (0.55, 0.5, "tie", COMPARISON.a.text)
    assert label(vote(0.2, p_tie=0.5)).status == "tie"
    assert label(vote(0.4, p_tie=0.4)).status == "ok"  # as likely is not likelier


def test_whether_a_tie_is_likeliest_is_asked_of_what_was_said_and_not_of_what_was_made_of_it() -> None:
    """A clamp and a calibration move the label, and leave what a tie is beside it."""
    clamped = label(vote(0.6, p_tie=0.4, raw={"clamp": [0.4, 0.6]}))
    assert clamped.p == pytest.approx(0.56)
    assert clamped.status == "ok"
    drawn_in = label(vote(0.58, p_tie=0.4), slope=0.3)
    assert drawn_in.p == pytest.approx(0.594, abs=1e-3)
    assert drawn_in.status == "ok"
    drawn_out = label(vote(0.35, p_tie=0.5), slope=9.0)
    assert drawn_out.p == pytest.approx(0.975, abs=1e-3)
    assert drawn_out.status == "tie"


def test_the_id_is_of_comparison_axis_and_rule_and_not_of_the_votes() -> None:
    assert label(vote(0.9)).id == label(vote(0.1)).id
    assert label(vote(0.9)).id != label(vote(0.9), panel="median").id


@pytest.mark.parametrize("wrong", [{"panel": "best"}, {"tie_band": 0.6}, {"tie_band": float("nan")}])
def test_wrong_rules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be"):
        Rule(**wrong)


def test_a_row_comes_back_as_it_was() -> None:
    prompt = Prompt.make((Message("user", "a"), Message("assistant", "b"), Message("user", "c")), tags=("t",))
    many = Group.make(prompt, [Candidate("x", "one"), Candidate("y", "two")])
    (pair,) = many.comparisons()
    for votes in ([vote(0.3, of=pair)], []):
        (found,) = preferences(many, votes, Rule())
        assert Preference.from_row(found.row()) == found


# Of 6 places: of 12, a mean can fall between two labels, where the last bit decides to which side it is rounded.
probabilities = st.floats(0, 1).map(lambda p: round(p, 6))


@hypothesis.settings(deadline=None)
@hypothesis.given(
    labels=st.lists(
        st.tuples(probabilities, st.sampled_from(["ab", "ba"]), st.sampled_from("jkl"), st.sampled_from(["x", "y"])),
        min_size=1,
        max_size=8,
        unique_by=lambda each: each[1:],
    ),
    panel=st.sampled_from(["mean", "log_odds", "median", "majority"]),
    need_both=st.booleans(),
    seed=st.randoms(use_true_random=False),
)
def test_what_is_judged_the_other_way_round_is_labelled_so_in_any_order_of_votes(
    labels: list[tuple[float, str, str, str]], panel: Any, need_both: bool, seed: Any
) -> None:
    rule = Rule(panel=panel, need_both=need_both)
    votes = [vote(p, order, judge=judge, principle_ids=(name,)) for p, order, judge, name in labels]
    (found,) = preferences(PAIR, votes, rule)
    shuffled = list(votes)
    seed.shuffle(shuffled)
    assert preferences(PAIR, shuffled, rule) == (found,)
    (mirrored,) = preferences(PAIR, [dataclasses.replace(v, p_a=1 - (v.p_a or 0)) for v in votes], rule)
    assert mirrored.status == found.status
    assert found.p is not None
    assert mirrored.p == pytest.approx(found.p, abs=1e-9)
    assert found.p >= 0.5
    assert found.margin == round(2 * found.p - 1, 12)
    if found.p - 0.5 > 1e-9:
        assert {found.chosen, mirrored.chosen} == {COMPARISON.a.text, COMPARISON.b.text}
        assert mirrored.agreement == pytest.approx(found.agreement)


# --- with a real judge


@pytest.mark.parametrize("count", [3, 4])
def test_a_list_that_failed_in_one_rotation_gives_no_label_of_place(count: int) -> None:
    many = group(count)
    judge = listwise.build(listwise.Config(), models={"judge": "m"}, seed=1)
    broken: list[int] = [0]

    async def generate(request: Request) -> Completion:
        """Prefers the first place, whatever stands there; one request has next to no mass."""
        asked.append(request)
        share = 1e-3 if len(asked) in broken else 0.9
        places = [4.0, *[1.0] * (count - 1)]
        told = tuple(math.log(share * each / sum(places)) for each in places)
        return Completion("", "stop", 0, 0, choice_logprobs=told)

    asked: list[Request] = []
    whole = asyncio.run(judge(many, Question(), generate))
    assert {each.p for each in preferences(many, whole, Rule())} == {0.5}
    asked, broken = [], [2]
    failed = asyncio.run(judge(many, Question(), generate))
    assert {each.error for each in failed} == {None, "low_mass"}
    assert {(each.status, each.p) for each in preferences(many, failed, Rule())} == {("abstain", None)}
    assert rankings(many, failed, preferences(many, failed, Rule())) == {"": tuple(c.id for c in many.candidates)}
    assert any(each.p != 0.5 for each in preferences(many, failed, Rule(need_both=False)))


def test_the_votes_of_the_logprob_judge_come_to_preferences() -> None:
    many = group(3)
    judge = logprob.build(logprob.Config(), models={"judge": "m"}, seed=1)

    async def generate(request: Request) -> Completion:
        """Prefers what it is shown first with odds 3 to 1, whatever it is."""
        return Completion("", "stop", 0, 0, choice_logprobs=(math.log(0.6), math.log(0.2)))

    async def all_votes() -> list[Vote]:
        question = Question(principle_ids=("x",), axis="harmless")
        found = [await judge(pair, question, generate) for pair in many.comparisons()]
        return list(itertools.chain.from_iterable(found))

    votes = asyncio.run(all_votes())
    found = preferences(many, votes, Rule())
    assert [v.p_a for v in votes[:2]] == pytest.approx([0.75, 0.25])
    assert [(each.status, each.flipped, each.axis) for each in found] == [("tie", 1.0, "harmless")] * 3


# --- clamp, calibration, inferred votes

CLAMP: dict[str, Any] = {"raw": {"clamp": [0.4, 0.6]}}


def test_a_label_is_clamped_after_its_orders_are_averaged() -> None:
    # Clamped one by one, 0.97 and 0.38 would come to exactly 0.5.
    found = label(vote(0.97, **CLAMP), vote(0.38, "ba", **CLAMP))
    assert (found.p, found.status) == (0.6, "ok")
    mild = label(vote(0.6, **CLAMP), vote(0.5, "ba", **CLAMP))
    assert mild.p == pytest.approx(0.55)
    assert label(vote(0.97), vote(0.38, "ba")).p == pytest.approx(0.675)


def test_of_a_panel_each_judge_is_clamped_by_itself() -> None:
    found = label(vote(0.9, **CLAMP), vote(0.9, judge="free"))
    assert found.p == pytest.approx((0.6 + 0.9) / 2)


def test_the_clamp_leaves_a_tie_its_share() -> None:
    found = label(vote(0.78, p_tie=0.2, **CLAMP))
    assert found.p == pytest.approx(0.8 * 0.6 + 0.1)
    assert found.p_tie == pytest.approx(0.2)


def test_a_calibration_is_applied_to_what_all_votes_come_to() -> None:
    found = label(vote(0.9), vote(0.7, "ba"), slope=0.5)
    assert found.p == pytest.approx(1 / (1 + math.exp(-0.5 * math.log(4))))
    assert found.p == pytest.approx(label(vote(0.1), vote(0.3, "ba"), slope=0.5).p or 0)
    with pytest.raises(InputError, match="slope"):
        Rule(slope=-1.0)


def test_what_was_inferred_is_not_calibrated() -> None:
    inferred = vote(0.2, judge="tournament", raw={"inferred": True})
    assert label(inferred, slope=0.5).p == 0.8
    assert label(inferred, vote(0.2), slope=0.5).p == pytest.approx(2 / 3)


def test_what_was_inferred_only_stands_in_where_nothing_was_asked() -> None:
    inferred = vote(0.2, judge="tournament", raw={"inferred": True})
    assert label(inferred).p == 0.8
    assert label(inferred, vote(0.9)).p == 0.9
    assert label(inferred, vote(None)).p == 0.8


def test_a_row_names_only_the_principles_whose_verdicts_count() -> None:
    inferred: dict[str, Any] = {"raw": {"inferred": True}}
    # Each principle plays a tournament of its own; "x" asked this pair, for "y" it follows from other pairs.
    asked = [vote(0.8, order, principle_ids=("x",)) for order in ("ab", "ba")]
    asked[1] = dataclasses.replace(asked[1], p_a=0.7)
    guessed = vote(0.1, "", judge="tournament", principle_ids=("y",), **inferred)
    found = label(*asked, guessed)
    assert found.p == pytest.approx(0.75)
    assert found.principle_ids == ("x",)
    assert len(found.votes) == 3
    # Where nothing was asked, what follows from others counts; where nothing came of it, what was asked is named.
    assert label(guessed).principle_ids == ("y",)
    assert label(vote(None, principle_ids=("x",))).principle_ids == ("x",)
    assert label(*asked, vote(None, principle_ids=("z",))).principle_ids == ("x",)
