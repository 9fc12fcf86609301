"""All answers at once: places, letters, rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cai.engine import LOWEST, Completion, Request
from cai.errors import InputError
from cai.judging import Question
from cai.records import Group, Vote
from cai.stages.prefer import Rule, p_of_a, preferences
from tests.judges.fakes import ANSWER, PROPERTY, Fake, by_worth, group, judge, ranked, run

TEXTS = ("one", "two", "three", "four")
OF = group(*TEXTS)
ALL = judge("listwise")
SHARES = st.floats(1e-3, 1)


def labels(of: Group, votes: Sequence[Vote]) -> dict[str, float]:
    """Soft label of each pair's a by the pair's id."""
    pairs = {pair.id: pair for pair in of.comparisons()}
    found = {each.comparison_id: p_of_a(each, pairs[each.comparison_id]) for each in preferences(of, votes, Rule())}
    return {pair: p for pair, p in found.items() if p is not None}


def shown(request: Request) -> list[str]:
    user = [message.content for message in request.prompt if not isinstance(message, str) and message.role == "user"]
    return [found["text"] for found in ANSWER.finditer(user[-1])]


def test_every_answer_stands_in_every_place_once() -> None:
    generate = Fake()
    run(ALL(OF, Question(), generate))
    lists = [shown(request) for request in generate.asked]
    assert len(lists) == 4
    assert all(sorted(each) == sorted(TEXTS) for each in lists)
    assert all(sorted(column) == sorted(TEXTS) for column in zip(*lists, strict=True))
    assert {request.choices for request in generate.asked} == {("A", "B", "C", "D")}
    once = Fake()
    run(judge("listwise", rotations="one")(OF, Question(), once))
    assert [shown(request) for request in once.asked] == lists[:1]


def test_of_two_answers_the_probability_is_the_share_of_their_letters() -> None:
    worth = {"one": 4.0, "two": 3.0, "three": 2.0, "four": 1.0}
    votes = run(ALL(OF, Question(), Fake(by_worth(worth))))
    assert len(votes) == 4 * 6
    for pair in OF.comparisons():
        for vote in (vote for vote in votes if vote.comparison_id == pair.id):
            assert vote.p_a == pytest.approx(worth[pair.a.text] / (worth[pair.a.text] + worth[pair.b.text]))
    assert ranked(OF, votes) == ("id0", "id1", "id2", "id3")
    assert ranked(OF, run(ALL(OF, Question(), Fake(by_worth({**worth, "four": 9.0}))))) == ("id3", "id0", "id1", "id2")


def test_the_order_of_a_vote_is_the_one_in_which_the_two_stood() -> None:
    generate = Fake()
    votes = run(ALL(OF, Question(), generate))
    lists = [shown(request) for request in generate.asked]
    for pair in OF.comparisons():
        for vote in (vote for vote in votes if vote.comparison_id == pair.id):
            place = lists[vote.raw["rotation"]]
            a, b = place.index(pair.a.text), place.index(pair.b.text)
            assert vote.order == ("ab" if a < b else "ba")
            assert vote.raw["letters"] == ["ABCD"[a], "ABCD"[b]]
        assert {vote.order for vote in votes if vote.comparison_id == pair.id} == {"ab", "ba"}


@PROPERTY
@given(st.lists(SHARES, min_size=4, max_size=4))
def test_a_model_that_looks_at_texts_alone_says_the_same_in_every_rotation(worth: list[float]) -> None:
    votes = run(ALL(OF, Question(), Fake(by_worth(dict(zip(TEXTS, worth, strict=True))))))
    for pair in OF.comparisons():
        found = [vote.p_a for vote in votes if vote.comparison_id == pair.id]
        assert found == pytest.approx([found[0]] * 4)


BIASES = st.lists(st.floats(-8, 8), min_size=4, max_size=4)


@PROPERTY
@given(BIASES)
@example([4.0, 2.0, 0.0, -2.0])
def test_a_model_that_prefers_places_prefers_no_answer(bias: list[float]) -> None:
    votes = run(ALL(OF, Question(), Fake(lambda texts, index: math.exp(bias[index]))))
    assert set(labels(OF, votes).values()) == {0.5}
    assert ranked(OF, votes) == ("id0", "id1", "id2", "id3")


@PROPERTY
@given(BIASES, st.permutations(range(4)))
def test_whatever_places_it_prefers_what_it_says_of_the_texts_is_found(bias: list[float], order: list[int]) -> None:
    logit = dict(zip(TEXTS, order, strict=True))
    votes = run(ALL(OF, Question(), Fake(lambda texts, index: math.exp(logit[texts[index]] + bias[index]))))
    found = labels(OF, votes)
    for pair in OF.comparisons():
        gap = logit[pair.a.text] - logit[pair.b.text]
        assert found[pair.id] == pytest.approx(1 / (1 + math.exp(-gap)), abs=1e-9)
    assert ranked(OF, votes) == tuple(f"id{index}" for index in sorted(range(4), key=lambda index: -order[index]))


def test_one_rotation_does_not_hide_that_it_cannot_see_the_preference() -> None:
    votes = run(judge("listwise", rotations="one")(OF, Question(), Fake(lambda texts, index: 4.0 - index)))
    assert len(votes) == 6
    assert all((vote.p_a or 0) > 0.5 if vote.order == "ab" else (vote.p_a or 1) < 0.5 for vote in votes)


def test_a_rotation_without_a_verdict_leaves_the_others() -> None:
    class Forgetful(Fake):
        async def __call__(self, request: Request) -> Completion:
            self.mass = 0.01 if shown(request)[0] == "one" else 0.9
            return await super().__call__(request)

    votes = run(ALL(OF, Question(), Forgetful()))
    failed = [vote for vote in votes if vote.error]
    assert {vote.error for vote in failed} == {"low_mass"}
    assert len({vote.raw["rotation"] for vote in failed}) == 1
    assert len(failed) == 6


def test_two_answers_of_which_nothing_was_told_have_no_verdict() -> None:
    class Server(Fake):
        async def __call__(self, request: Request) -> Completion:
            told = tuple(-0.1 if text == "one" else LOWEST for text in shown(request))
            return Completion("A", "length", 1, 1, choice_logprobs=told)

    votes = run(ALL(OF, Question(), Server()))
    for pair in OF.comparisons():
        both = {pair.a.text, pair.b.text}
        errors = {vote.error for vote in votes if vote.comparison_id == pair.id}
        assert errors == ({None} if "one" in both else {"unread"})


def test_more_answers_than_letters_are_refused() -> None:
    sixteen = group(*(f"answer {number}" for number in range(16)))
    generate = Fake()
    votes = run(judge("listwise", rotations="one")(sixteen, Question(), generate))
    assert len(votes) == 120
    assert generate.asked[0].choices[-1] == "P"
    with pytest.raises(InputError, match=r"17 answers, but a list holds 16.*tournament"):
        run(ALL(group(*(f"answer {number}" for number in range(17))), Question(), Fake()))
