"""Judges named inside a judge."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from cai.judges import logprob, panel, rating, tournament
from cai.judging.members import Inner, Member, roles


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "logprobs"}, r"no judge 'logprobs'; did you mean 'logprob'"),
        ({"method": "logprob", "order": "one"}, r"logprob: unknown key 'order'; did you mean 'orders'"),
        ({"method": "cot", "clamp": [0.1, 0.6]}, r"cot: clamp: give a range around 0.5"),
        ({"method": "cot", "samples": 0}, r"cot: samples: .*greater than or equal to 1"),
        ({}, r"method\n  Field required"),
    ],
)
def test_an_inner_judge_is_checked_by_its_own_method(given: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said):
        tournament.Config.model_validate({"judge": given})


def test_it_is_built_with_its_own_options() -> None:
    inner = Inner.model_validate({"method": "logprob", "orders": "one", "model": "second"})
    assert inner.config() == logprob.Config(orders="one", model="second")
    built = inner.build({"second": "m"}, 0)
    assert built.id == logprob.build(logprob.Config(orders="one", model="second"), models={"second": "m"}, seed=0).id


def test_a_member_is_called_by_its_name_or_its_method() -> None:
    assert Member(method="logprob").label == "logprob"
    assert Member(method="logprob", name="careful").label == "careful"


def test_the_roles_are_those_of_all_models_within() -> None:
    assert roles(rating.Config(model="critic")) == ("critic",)
    config = panel.Config.model_validate(
        {
            "members": [
                {"method": "rating", "model": "second"},
                {"method": "tournament", "judge": {"method": "cot", "model": "third"}},
                {"method": "logprob"},
            ]
        }
    )
    assert roles(config) == ("judge", "second", "third")
