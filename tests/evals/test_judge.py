"""From votes to a report: what counts, what does not, and what people reach."""

from __future__ import annotations

import dataclasses

import pytest

from cai.evals.judge import Outcome, advice, measure, outcome
from cai.evals.pairs import Label, LabelledPair, plurality
from cai.evals.people import people
from cai.records import Group, Prompt, Vote
from cai.stages.prefer import Rule

MIXED: tuple[Label, ...] = ("chosen", "rejected", "tie")


def pair(number: int, *, prompt: int | None = None, labels: tuple[Label, ...] = (), subset: str = "") -> LabelledPair:
    asked = Prompt.make(f"Question {number if prompt is None else prompt}?")
    return LabelledPair(str(number), asked, f"good {number}", f"bad {number}", subset, None, labels)


def votes(
    group: Group, given: LabelledPair, *, first: tuple[float | None, float | None], tie: float = 0.0
) -> list[Vote]:
    """A vote in each order. `first`: probability of the better answer when it is shown first, and when it is second."""
    (comparison,) = group.comparisons()
    good_is_a = comparison.a.text == given.chosen
    found = []
    for order in ("ab", "ba"):
        good_first = (order == "ab") == good_is_a
        p = first[0] if good_first else first[1]
        p_a = None if p is None else p if good_is_a else 1 - p - tie
        found.append(
            Vote(
                id=f"{comparison.id}{order}",
                comparison_id=comparison.id,
                group_id=group.id,
                judge="j",
                judge_id="j1",
                principle_ids=(),
                axis="",
                order=order,
                p_a=p_a,
                p_tie=0.0 if p is None else tie,
                error="low_mass" if p is None else None,
            )
        )
    return found


def judged(given: LabelledPair, *first: float | None, tie: float = 0.0) -> Outcome:
    group = given.group()
    both = (first[0], first[1])
    return outcome(given, group, votes(group, given, first=both, tie=tie), Rule())


def test_a_report_by_hand() -> None:
    found = measure(
        [
            judged(pair(1), 0.9, 0.7),  # right: 0.8
            judged(pair(2), 0.9, 0.3),  # right: 0.6, and it flips
            judged(pair(3), 0.6, 0.2),  # wrong: 0.4, and it flips
            judged(pair(4), 0.7, 0.3),  # undecided: 0.5, and it flips
            judged(pair(5), 0.9, None),  # no verdict: one order failed
            Outcome(pair(6), pair(6).group(), (), error="backend"),
        ],
        seed=0,
    )
    assert (found["n"], found["judged"], found["scored"], found["votes"]) == (6, 4, 4, 10)
    assert found["accuracy"] == pytest.approx(2.5 / 4)
    assert found["coverage"] == pytest.approx(4 / 6)
    assert found["brier"] == pytest.approx((0.04 + 0.16 + 0.36 + 0.25) / 4)
    assert found["flip_rate"] == pytest.approx(3 / 4)
    # Nine verdicts; where the better one is first it is preferred in five of five, where it is second in one of four.
    assert found["first_slot_rate"] == pytest.approx((5 + 3) / 9)
    assert found["parse_failures"] == 1
    assert found["failures"] == {"low_mass": 1, "backend": 1}
    assert found["tie_rate"] == pytest.approx(1 / 4)
    assert found["accuracy_ci"][0] < 2.5 / 4 < found["accuracy_ci"][1]


def test_a_judge_of_the_slot_says_nothing_of_the_answers() -> None:
    found = measure([judged(pair(number), 0.99, 0.01) for number in range(60)], seed=0)
    assert (found["accuracy"], found["flip_rate"], found["first_slot_rate"]) == (0.5, 1.0, 1.0)
    assert (found["brier"], found["ece"]) == pytest.approx((0.25, 0.0))
    said = advice(found | {"people": None})
    assert said.startswith("It prefers the first slot in 100% of cases: read only both orders together")
    assert "cannot be told from a coin" in said


def test_nothing_judged_is_nothing_and_not_a_half() -> None:
    found = measure([judged(pair(1), None, None)], seed=0)
    assert found["accuracy"] is found["brier"] is found["ece"] is found["flip_rate"] is found["first_slot_rate"] is None
    assert found["parse_failures"] == 2
    assert "There is no verdict" in advice(found)


def test_pairs_of_one_prompt_are_one_case() -> None:
    apart = measure([judged(pair(n), 0.9, 0.9 if n % 2 else 0.0) for n in range(80)], seed=0)
    together = measure([judged(pair(n, prompt=n % 2), 0.9, 0.9 if n % 2 else 0.0) for n in range(80)], seed=0)
    assert apart["accuracy"] == together["accuracy"] == 0.5
    width = [high - low for low, high in (apart["accuracy_ci"], together["accuracy_ci"])]
    assert width[1] > 3 * width[0]
    assert (apart["prompts"], together["prompts"]) == (80, 2)


def test_subsets_and_advice() -> None:
    rows = [judged(pair(n, subset="x" if n < 50 else "y"), 0.9, 0.9 if n < 50 else 0.2) for n in range(100)]
    found = measure(rows, seed=0)
    assert {name: part["n"] for name, part in found["subsets"].items()} == {"x": 50, "y": 50}
    assert (found["subsets"]["x"]["accuracy"], found["subsets"]["x"]["flip_rate"]) == (1.0, 0.0)
    assert found["subsets"]["y"]["flip_rate"] == 1.0
    assert "--calibrate" in advice(measure([judged(pair(n), 0.6, 0.6) for n in range(50)], seed=0))
    assert "sides against people" in advice(measure([judged(pair(n), 0.1, 0.1) for n in range(50)], seed=0))


def test_ties_are_a_class_of_their_own() -> None:
    tied: tuple[Label, ...] = ("tie", "tie", "chosen")
    rows = [
        judged(pair(1, labels=("chosen",) * 3), 0.8, 0.8, tie=0.1),  # chosen, chosen
        judged(pair(2, labels=tied), 0.2, 0.2, tie=0.6),  # tie, tie
        judged(pair(3, labels=tied), 0.8, 0.8, tie=0.1),  # chosen, tie
        judged(pair(4, labels=MIXED), 0.8, 0.8, tie=0.1),  # nobody's majority: in no score
    ]
    assert [row.said for row in rows] == ["chosen", "tie", "chosen", "chosen"]
    found = measure(rows, seed=0)
    assert (found["scored"], found["people_tie"], found["accuracy"]) == (1, 3, 1.0)
    assert found["three_way"]["n"] == 3
    assert found["three_way"]["agreement"] == pytest.approx(2 / 3)
    assert measure([judged(pair(1), 0.8, 0.8)], seed=0)["three_way"] is None


def test_leave_one_out_by_hand() -> None:
    rows: list[tuple[LabelledPair, Label | None]] = [
        # Each of three against two that agree: 3 turns, all right; the judge is right 3 times.
        (pair(1, labels=("chosen",) * 3), "chosen"),
        # The odd one against two that agree: wrong; the two others have no reference.
        (pair(2, labels=("chosen", "chosen", "rejected")), "rejected"),
        # Two ties: the odd one's reference is a tie, in three classes only.
        (pair(3, labels=("tie", "tie", "chosen")), "tie"),
        (pair(4, labels=MIXED), "chosen"),  # no turn has a reference
        (pair(5, labels=("chosen", "chosen")), "chosen"),  # two people: nobody can be left out
        (pair(6, labels=("chosen",) * 3), None),  # the judge has no verdict: neither is counted
    ]
    found = people(rows, seed=0)
    assert found is not None
    two, three = found["two_way"], found["three_way"]
    assert (two["n"], two["person"], two["judge"]) == (4, 0.75, 0.75)
    assert (three["n"], three["person"], three["judge"]) == (5, 0.6, 0.8)
    assert three["difference"]["mean"] == pytest.approx(0.2)
    assert people(rows[4:], seed=0) is None


def test_a_judge_like_a_person_is_told_as_one() -> None:
    rows: list[tuple[LabelledPair, Label | None]] = []
    for number in range(300):
        labels: list[Label] = ["chosen"] * 3
        if number % 10 == 0:
            labels[number // 10 % 3] = "rejected"
        said: Label = "rejected" if number % 10 == 5 else "chosen"
        rows.append((pair(number, labels=tuple(labels)), said))
    found = people(rows, seed=0)
    assert found is not None
    assert found["two_way"]["person"] == pytest.approx(810 / 840)
    low, high = found["two_way"]["difference"]["ci"]
    assert high < 0 < found["two_way"]["judge"] < 1
    assert low > -0.2


def test_the_record_of_a_pair() -> None:
    row = judged(pair(1, subset="s"), 0.9, 0.7).row()
    assert row["p_chosen"] == pytest.approx(0.8)
    assert (row["id"], row["subset"], row["verdict"], row["people"], row["error"]) == ("1", "s", "chosen", "chosen", "")
    assert plurality(dataclasses.replace(pair(1), labels=MIXED).labels) is None


def test_calibration_is_advised_only_where_chance_does_not_explain_the_error() -> None:
    figures = {"accuracy": 0.8, "accuracy_ci": [0.7, 0.9], "first_slot_rate": None, "flip_rate": None, "coverage": 1.0}
    said = "--calibrate mends that"
    assert said in advice({**figures, "ece": 0.2, "ece_by_chance": 0.15})
    assert said not in advice({**figures, "ece": 0.2, "ece_by_chance": 0.25})
    assert said not in advice({**figures, "ece": 0.2, "ece_by_chance": 0.15, "calibration": {}})
