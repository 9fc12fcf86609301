"""Several judges: whose votes are whose, units, and what is refused."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from cai.errors import InputError
from cai.judging import Question
from tests.judges.fakes import Fake, by_worth, group, judge, run

OF = group("good", "bad", "middling")
WORTH = {"good": 3.0, "bad": 1.0, "middling": 2.0}


def test_every_member_s_votes_carry_its_name_and_are_its_own() -> None:
    panel = judge("panel", members=[{"method": "logprob"}, {"method": "logprob", "name": "second", "orders": "one"}])
    assert (panel.unit, panel.rule) == ("pair", "mean")  # type: ignore[attr-defined]
    pair = OF.comparisons()[0]
    votes = run(panel(pair, Question(), Fake(by_worth(WORTH))))
    assert [(vote.judge, vote.order) for vote in votes] == [("logprob", "ab"), ("logprob", "ba"), ("second", "ab")]
    alone = run(judge("logprob")(pair, Question(), Fake(by_worth(WORTH))))
    assert votes[:2] == alone
    assert votes[2].judge_id == judge("logprob", orders="one").id


def test_with_a_member_that_takes_groups_it_takes_groups() -> None:
    panel = judge(
        "panel", members=[{"method": "logprob", "name": "pairs"}, {"method": "rating"}, {"method": "listwise"}]
    )
    assert panel.unit == "group"
    votes = run(panel(OF, Question(), Fake(by_worth(WORTH))))
    for name, count in (("pairs", 6), ("rating", 3), ("listwise", 9)):
        found = [vote for vote in votes if vote.judge == name]
        assert len(found) == count
        assert {vote.comparison_id for vote in found} == {pair.id for pair in OF.comparisons()}
    assert len({vote.id for vote in votes}) == len(votes)


def test_members_ask_models_of_their_own() -> None:
    panel = judge("panel", members=[{"method": "logprob"}, {"method": "logprob", "name": "other", "model": "second"}])
    generate = Fake()
    run(panel(OF.comparisons()[0], Question(), generate))
    assert sorted(request.model for request in generate.asked) == ["judge", "judge", "second", "second"]


def test_the_rule_changes_no_vote_and_so_no_id() -> None:
    members: list[dict[str, Any]] = [{"method": "logprob"}, {"method": "cot"}]
    assert judge("panel", members=members, rule="median").id == judge("panel", members=members).id
    assert judge("panel", members=[{**members[0], "name": "x"}, members[1]]).id != judge("panel", members=members).id


def test_the_same_judge_twice_is_refused_since_its_errors_would_count_twice() -> None:
    with pytest.raises(InputError, match="'logprob' and 'again' are the same judge"):
        judge("panel", members=[{"method": "logprob"}, {"method": "logprob", "name": "again"}])
    with pytest.raises(InputError, match="'logprob' and 'tournament' are the same judge"):
        judge("panel", members=[{"method": "logprob"}, {"method": "tournament"}])


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([{"method": "logprob"}], "at least 2"),
        ([{"method": "logprob"}, {"method": "logprob", "orders": "one"}], "two members are called 'logprob'"),
        (
            [{"method": "cot"}, {"method": "panel", "members": [{"method": "logprob"}, {"method": "rating"}]}],
            "cannot be a member of a panel",
        ),
        ([{"method": "logprob"}, {"method": "cot", "sample": 2}], "cot: unknown key 'sample'; did you mean 'samples'"),
    ],
)
def test_a_panel_that_cannot_be(members: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        judge("panel", members=members)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="log_odds"):
        judge("panel", members=[{"method": "logprob"}, {"method": "cot"}], rule="loudest")
