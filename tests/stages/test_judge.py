"""What a judge is asked about a principle: of two answers, and of one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cai.constitution import Constitution, load_constitution
from cai.errors import InputError
from cai.records import Prompt
from cai.stages.judge import Plan, Principles, asked, questions
from cai.stages.prefer import Rule
from tests.judges.fakes import LEAST, judge

RATES = ("rating", "panel")
"""Judges that show an answer alone, or have a member that does."""


@pytest.fixture(params=sorted(LEAST))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def plan(name: str, constitution: Constitution, principles: Principles = "all", *axes: str) -> Plan:
    return Plan(constitution, judge(name, **LEAST[name]), principles, axes, 1)


def of(**change: str) -> Constitution:
    """Two principles of two axes, the first of them changed."""
    constitution = load_constitution("default")
    kind, plain = constitution.get("manipulation"), constitution.get("plain-words")
    changed = dataclasses.replace(kind, principle=kind.principle.model_copy(update=change))
    return dataclasses.replace(constitution, principles=(changed, plain))


def test_no_shipped_principle_compares_where_one_answer_is_seen() -> None:
    constitution = load_constitution("default")
    found = questions(plan("rating", constitution), Prompt.make("Hello?"), "x")
    assert len(found) == len(constitution.judging)
    for question, bound in zip(found, constitution.judging, strict=True):
        assert question.text == bound.principle.judge.strip()
        assert question.alone.endswith(bound.principle.asks.strip())
        assert "hich answer" not in question.alone


def test_a_principle_that_asks_nothing_is_refused_by_those_who_see_one_answer(name: str) -> None:
    mute = of(asks=" ")
    for free in (plan(name, mute, "none"), plan(name, mute, "all", "helpful"), plan(name, of())):
        assert free.judge.name == name
    if name not in RATES:
        assert plan(name, mute)
        return
    with pytest.raises(InputError, match=f"principle manipulation: has no `asks`, and the judge {name}"):
        plan(name, mute)


def test_what_a_calibration_depends_on_is_what_its_judge_is_asked(name: str) -> None:
    def said(**change: str) -> Any:
        return asked(judge(name, **LEAST[name]), of(**change), "all", (), Rule())["questions"]

    assert said() == said(critique="Is it?")
    assert said() != said(judge="Which is the kinder one?")
    assert (said() != said(asks="Answers are very kind.")) == (name in RATES)
