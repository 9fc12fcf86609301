"""Ratings by expectation, the two spellings of 10, and pairs from two distributions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.errors import InputError
from cai.judges import rating
from cai.judging import Question
from cai.judging.prompt import load_prompt
from cai.records import Prompt
from tests.judges.fakes import PROPERTY, Fake, group, judge, ranked, run

PROMPT = Prompt.make("How do I keep bread fresh?")
RATER = rating.rater(rating.Config())
DISTRIBUTIONS = st.lists(st.floats(1e-3, 1), min_size=10, max_size=10)


def rate(generate: Fake, text: str = "In a bag.") -> rating.Rating:
    return run(RATER.score(PROMPT, text, "", generate))


def only(*shares: float) -> Fake:
    return Fake(ratings=lambda text: [*shares, *[0.0] * (10 - len(shares))])


@pytest.mark.parametrize(
    ("shares", "expectation", "scaled"),
    [
        ((1.0,), 1.0, -1.0),
        ((0, 0, 0, 0, 1.0, 1.0), 5.5, 0.0),
        ((0, 0.5, 0, 0, 0, 0, 0, 0, 0.5), 5.5, 0.0),
        ((0, 0.25, 0, 0.75), 3.5, -2 / 4.5),
    ],
)
def test_the_rating_is_the_expectation(shares: tuple[float, ...], expectation: float, scaled: float) -> None:
    found = rate(only(*shares))
    assert found.expectation == pytest.approx(expectation)
    assert found.scaled == pytest.approx(scaled)
    assert sum(found.p) == pytest.approx(1)
    assert found.mass == pytest.approx(0.9)


def test_a_ten_of_two_tokens_is_a_one_and_then_a_nought() -> None:
    generate = only(0.4, *[0.0] * 7, 0.6)
    generate.zero = 0.75
    found = rate(generate)
    assert found.p == pytest.approx((0.1, *[0.0] * 7, 0.6, 0.3))
    assert found.expectation == pytest.approx(0.1 + 5.4 + 3.0)
    refused, first, second = generate.asked
    assert (refused.choices[-1], first.choices[-1], second.choices) == ("10", "9", ("0",))
    assert second.prompt[-1].content == f"{load_prompt('rate').reply}1"  # type: ignore[union-attr]


def test_a_ten_of_one_token_is_read_at_once_and_both_spellings_are_summed() -> None:
    generate = Fake(ratings=lambda text: [0.2, *[0.0] * 8, 0.8], one_token_ten=True, zero=0.5)
    assert rate(generate).p == pytest.approx((0.1, *[0.0] * 8, 0.9))
    assert len(generate.asked) == 2


def test_where_no_one_is_likely_the_second_pass_is_left_out() -> None:
    generate = only(0.0005, 0, 0, 0, 0, 0, 0, 1.0)
    rate(generate)
    assert [request.choices[0] for request in generate.asked] == ["1", "1"]  # the refused one, and one more


@PROPERTY
@given(DISTRIBUTIONS, st.floats(0, 1))
def test_the_two_spellings_always_give_a_distribution(shares: list[float], zero: float) -> None:
    for one_token in (True, False):
        found = rate(Fake(ratings=lambda text: shares, one_token_ten=one_token, zero=zero))
        assert sum(found.p) == pytest.approx(1)
        assert min(found.p) >= 0
        assert -1 <= (found.scaled or 0.0) <= 1


def test_a_failure_is_no_rating() -> None:
    low = rate(Fake(mass=0.05))
    assert (low.expectation, low.scaled, low.error) == (None, None, "low_mass")
    assert low.mass == pytest.approx(0.05)
    assert low.raw["logprobs"]
    long = rate(Fake(context=50))
    assert (long.expectation, long.scaled, long.error) == (None, None, "too_long")


def test_pairs_are_decided_from_the_two_distributions() -> None:
    shares = {"good": [0, 0, 0.5, 0.5], "bad": [0, 0.5, 0.5, 0]}
    of = group("good", "bad")
    (vote,) = run(judge("rating")(of, Question(), Fake(ratings=lambda text: shares[text])))
    (pair,) = of.comparisons()
    # 3 and 4 against 2 and 3: above in three of four, equal in one.
    assert vote.raw["equal"] == pytest.approx(0.25)
    assert vote.p_tie == 0
    assert vote.p_a == pytest.approx(0.875 if pair.a.text == "good" else 0.125)
    assert vote.order == ""
    side = "a" if pair.a.text == "good" else "b"
    assert vote.raw[side]["expectation"] == pytest.approx(3.5)
    assert vote.raw[side]["p"] == pytest.approx([0, 0, 0.5, 0.5, 0, 0, 0, 0, 0, 0])


def test_a_vote_is_of_what_is_asked_about_one_answer() -> None:
    def voted(text: str = "Which is kinder?", alone: str = "Is it kind?") -> str:
        question = Question(text, ("kind",), alone=alone)
        (vote,) = run(judge("rating")(group("good", "bad"), question, Fake()))
        return vote.id

    assert voted() == voted(text="Which is the kinder one?")
    assert voted() != voted(alone="Is it very kind?")


@PROPERTY
@given(DISTRIBUTIONS, DISTRIBUTIONS)
def test_the_verdict_on_b_and_a_is_that_on_a_and_b(one: list[float], other: list[float]) -> None:
    found = [rate(Fake(ratings=lambda text, s=shares: s)) for shares in (one, other)]  # type: ignore[misc]
    ab, ba = rating.compare(*found), rating.compare(*reversed(found))
    assert ab.p_first is not None
    assert ba.p_first is not None
    assert ab.p_first + ba.p_first == pytest.approx(1)
    assert ab.p_tie == ba.p_tie == 0
    assert rating.compare(found[0], found[0]).p_first == pytest.approx(0.5)


def test_an_answer_without_a_rating_spoils_its_own_pairs_only() -> None:
    of = group("good", "bad", "long " * 400)
    shares = {"good": [0, 0, 0, 1.0], "bad": [1.0, 0, 0, 0]}
    votes = run(judge("rating")(of, Question(), Fake(ratings=lambda text: shares[text], context=1800)))
    assert sorted(vote.error or "" for vote in votes) == ["", "too_long", "too_long"]
    assert ranked(of, votes).index("id0") < ranked(of, votes).index("id1")


def test_the_scale_is_the_prompt_file_s(tmp_path: Path) -> None:
    path = tmp_path / "five.yaml"
    path.write_text(json.dumps({**load_prompt("rate").model_dump(mode="json"), "choices": list("12345")}))
    generate = only(0, 0, 0, 0, 1.0)
    found = run(rating.rater(rating.Config(prompt=str(path))).score(PROMPT, "In a bag.", "", generate))
    assert found.expectation == pytest.approx(5)
    assert found.scaled == pytest.approx(1)
    assert len(generate.asked) == 1


def test_another_fault_of_the_choices_is_not_taken_for_the_ten() -> None:
    async def refuses(request: object) -> None:
        raise InputError("the choice '7' is more than one token")

    with pytest.raises(InputError, match="'7'"):
        run(RATER.score(PROMPT, "In a bag.", "", refuses))  # type: ignore[arg-type]
