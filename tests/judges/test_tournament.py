"""Schedules, what is asked, and what is inferred."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.engine import Completion, Request
from cai.errors import InputError
from cai.judges import tournament
from cai.judging import Question
from cai.judging.ranking import bradley_terry, expected, games_of
from cai.records import Group, Vote
from cai.stages.prefer import Rule, preferences
from tests.judges.fakes import ANSWER, PROPERTY, Fake, by_worth, group, judge, ranked, run

TEXTS = tuple(f"answer {number}" for number in range(8))
OF = group(*TEXTS)
WORTH = {text: math.exp(-number) for number, text in enumerate(TEXTS)}
SWISS = judge("tournament")


def test_round_robin_is_the_pair_judge_s_own_votes() -> None:
    of = group(*TEXTS[:4])
    votes = run(judge("tournament", schedule="round_robin")(of, Question(), Fake(by_worth(WORTH))))
    pairs = judge("logprob")
    assert votes == tuple(
        vote for pair in of.comparisons() for vote in run(pairs(pair, Question(), Fake(by_worth(WORTH))))
    )


def test_every_pair_has_its_real_votes_or_one_that_says_it_was_inferred() -> None:
    generate = Fake(by_worth(WORTH))
    votes = run(SWISS(OF, Question(), generate))
    real = [vote for vote in votes if vote.judge == "logprob"]
    guessed = [vote for vote in votes if vote.judge == "tournament"]
    assert len(real) == 2 * 4 * 4  # four rounds of four pairs in both orders
    assert len(generate.asked) == len(real)
    asked = {vote.comparison_id for vote in real}
    assert {vote.comparison_id for vote in guessed} == {pair.id for pair in OF.comparisons()} - asked
    assert len(guessed) == 28 - 16
    assert all(vote.raw["inferred"] and vote.order == "" and vote.mass is None for vote in guessed)
    assert not any("inferred" in vote.raw for vote in real)


def strengths_of(of: Group, votes: Sequence[Vote]) -> dict[str, float]:
    """By what pairs were told whole."""
    told: dict[str, list[Vote]] = {}
    for vote in votes:
        if not vote.raw.get("inferred"):
            told.setdefault(vote.comparison_id, []).append(vote)
    labels = {pair: p for pair, found in told.items() if (p := tournament.label(found)) is not None}
    return dict(
        zip((c.id for c in of.candidates), bradley_terry(len(of.candidates), games_of(of, labels)), strict=True)
    )


def test_what_is_inferred_is_what_the_strengths_say() -> None:
    votes = run(SWISS(OF, Question(), Fake(by_worth(WORTH))))
    strengths = strengths_of(OF, votes)
    pairs = {pair.id: pair for pair in OF.comparisons()}
    for vote in (vote for vote in votes if vote.judge == "tournament"):
        pair = pairs[vote.comparison_id]
        assert vote.p_a == pytest.approx(expected(strengths[pair.a.id], strengths[pair.b.id]))


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(8)))
def test_with_few_pairs_the_best_and_the_whole_order_are_found(places: list[int]) -> None:
    worth = {text: math.exp(-place) for text, place in zip(TEXTS, places, strict=True)}
    wanted = sorted(range(8), key=lambda index: places[index])
    votes = run(SWISS(OF, Question(), Fake(by_worth(worth))))
    assert ranked(OF, votes)[0] == f"id{wanted[0]}"
    every = run(judge("tournament", schedule="round_robin")(OF, Question(), Fake(by_worth(worth))))
    assert ranked(OF, every) == tuple(f"id{index}" for index in wanted)


def test_a_model_that_prefers_the_first_slot_ranks_nobody() -> None:
    votes = run(SWISS(OF, Question(), Fake(lambda texts, index: 3.0 if index == 0 else 1.0)))
    assert ranked(OF, votes) == tuple(f"id{index}" for index in range(8))
    assert all(vote.p_a == pytest.approx(0.5) for vote in votes if vote.judge == "tournament")


def test_a_pair_whose_asking_failed_keeps_the_failure_and_nobody_guesses() -> None:
    class Shy(Fake):
        async def __call__(self, request: Request) -> Completion:
            user = [m.content for m in request.prompt if not isinstance(m, str) and m.role == "user"]
            texts = [found["text"] for found in ANSWER.finditer(user[-1])]
            self.mass = 0.01 if "answer 0" in texts else 0.9
            return await super().__call__(request)

    of = group(*TEXTS[:5])
    votes = run(judge("tournament", rounds=2)(of, Question(), Shy(by_worth(WORTH))))
    lone = {pair.id for pair in of.comparisons() if "id0" in (pair.a.id, pair.b.id)}
    errors = {vote.error for vote in votes if vote.comparison_id in lone}
    assert errors == {"low_mass", "unconnected"}
    assert all(vote.p_a is None for vote in votes if vote.comparison_id in lone)
    assert any(vote.error is None for vote in votes if vote.comparison_id not in lone)


def test_a_pair_that_failed_in_one_order_decides_nothing() -> None:
    """Its other verdict alone is the whole bias: here of a model that sees nothing but slots."""

    class Half(Fake):
        async def __call__(self, request: Request) -> Completion:
            user = [m.content for m in request.prompt if not isinstance(m, str) and m.role == "user"]
            _, second = (found["text"] for found in ANSWER.finditer(user[-1]))
            # Whatever stands before "answer 0" is never read.
            self.mass = 0.01 if second == "answer 0" else 0.9
            return await super().__call__(request)

    slot = Half(lambda texts, index: 9.0 if index == 0 else 1.0)
    of = group(*TEXTS[:4])
    votes = run(judge("tournament", rounds=2)(of, Question(), slot))
    lone = {pair.id for pair in of.comparisons() if "id0" in (pair.a.id, pair.b.id)}
    assert any(vote.p is not None for vote in votes if vote.comparison_id in lone), "one order of two is read"
    inferred = [vote for vote in votes if vote.raw.get("inferred")]
    assert inferred
    assert {vote.error for vote in inferred if vote.comparison_id in lone} <= {"unconnected"}
    assert all(vote.p == pytest.approx(0.5) for vote in inferred if vote.p is not None)
    pairs = {frozenset((pair.a.id, pair.b.id)): pair for pair in of.comparisons()}
    by_pair = {pair: [vote for vote in votes if vote.comparison_id == pair] for pair in lone}
    assert tournament.standing(["id3", "id2", "id1", "id0"], pairs, by_pair) == ["id3", "id2", "id1", "id0"]


def test_inferred_labels_are_clamped_as_the_pair_judges_own_are() -> None:
    of = group(*TEXTS)
    votes = run(judge("tournament", judge={"method": "cot"}, rounds=3)(of, Question(), Fake(by_worth(WORTH))))
    inferred = [vote for vote in votes if vote.raw.get("inferred")]
    assert max(abs((vote.p or 0.5) - 0.5) for vote in inferred) > 0.1
    assert all(each.p is not None and each.p <= 0.6 for each in preferences(of, votes, Rule()))
    plain = run(SWISS(of, Question(), Fake(by_worth(WORTH))))
    assert not any("clamp" in vote.raw for vote in plain)


@pytest.mark.parametrize(("count", "wanted"), [(2, 2), (3, 3), (4, 3), (5, 4), (8, 4), (9, 5), (16, 5)])
def test_rounds(count: int, wanted: int) -> None:
    assert tournament.rounds(count) == wanted


def test_neighbours_meet_and_never_twice() -> None:
    order = ["p", "q", "r", "s", "t"]
    first = tournament.swiss(order, set())
    assert first == [frozenset("pq"), frozenset("rs")]
    assert tournament.swiss(order, set(first)) == [frozenset("pr"), frozenset("qs")]
    assert tournament.swiss(order[:2], set(first)) == []


@PROPERTY
@given(st.integers(2, 9), st.integers(1, 8), st.randoms(use_true_random=False))
def test_a_round_pairs_nobody_twice_and_no_pair_again(count: int, rounds: int, random: object) -> None:
    order = [str(number) for number in range(count)]
    played: set[frozenset[str]] = set()
    for _ in range(rounds):
        random.shuffle(order)  # type: ignore[attr-defined]
        paired = tournament.swiss(order, played)
        flat = [each for pair in paired for each in pair]
        assert len(flat) == len(set(flat)) == 2 * len(paired)
        assert not played & set(paired)
        assert paired or len(played) == count * (count - 1) // 2
        played |= set(paired)


def test_groups_of_games() -> None:
    assert tournament.parts(5, [(0, 1, 0.5), (3, 4, 0.5), (4, 1, 1.0)]) == [0, 0, 2, 0, 0]


def test_it_takes_one_judge_of_pairs() -> None:
    for inner in (
        {"method": "rating"},
        {"method": "tournament"},
        {"method": "panel", "members": [{"method": "logprob"}, {"method": "cot"}]},
    ):
        with pytest.raises(InputError, match="needs one judge of pairs"):
            judge("tournament", judge=inner)
    with pytest.raises(pydantic.ValidationError, match="rounds are of a swiss schedule"):
        judge("tournament", schedule="round_robin", rounds=3)


def test_its_id_follows_the_pair_judge() -> None:
    plain = judge("tournament").id
    assert judge("tournament", judge={"method": "logprob", "orders": "both"}).id == plain
    assert judge("tournament", judge={"method": "logprob", "orders": "one"}).id != plain
    assert judge("tournament", rounds=2).id != plain
