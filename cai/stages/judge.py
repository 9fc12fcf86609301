"""Judging: questions made from principles, put to a judge about each group of answers.

Bai et al. 2022 (arXiv 2212.08073, section 4.1) draw one principle a label; here that, or all principles with their
votes averaged later, or each axis by itself. A judge that is given whole groups (listwise, rating, tournament) is asked
one question a group, so there one principle is drawn for all comparisons of the group. The votes are kept one by one:
what they come to is decided in `cai.stages.prefer`, and can be decided anew without asking a model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cai.constitution.draw import draw_one, set_aside
from cai.constitution.load import Bound, Constitution
from cai.engine import Generate
from cai.judging import Judge, Question, check_asks, question_of, sees_one
from cai.records import Group, Prompt, Vote, content_hash
from cai.scheduler import together
from cai.stages.prefer import Rule

STAGE = "judge"
Principles = Literal["drawn", "all", "none"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The stage's parameters; see `cai.recipe.JudgeConfig` for their meaning.

    Attributes:
        axes: judged each by itself, with its own principles; empty: one verdict over all principles, of no axis.

    Raises:
        InputError: a principle says nothing to a judge who sees one answer, see `cai.judging.check_asks`.
    """

    constitution: Constitution
    judge: Judge
    principles: Principles
    axes: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        if self.principles != "none":
            check_asks(self.judge, (bound.principle for bound in _of_axes(self.constitution, self.axes)))


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge said of one group."""

    group: Group
    votes: tuple[Vote, ...]


def questions(plan: Plan, prompt: Prompt, key: str) -> tuple[Question, ...]:
    """What is asked about the item `key` (a comparison, or a group) of a prompt; a pure function.

    An axis all of whose principles the prompt sets aside is not asked.
    """
    if plan.principles == "none":
        return tuple(Question(axis=axis) for axis in plan.axes or ("",))
    found: list[Question] = []
    for axis in plan.axes or ("",):
        candidates = [
            bound
            for bound in _of_axes(plan.constitution, (axis,) if axis else ())
            if not set_aside(bound, prompt.overrides)
        ]
        if candidates and plan.principles == "drawn":
            candidates = [draw_one(candidates, seed=plan.seed, key=f"{axis}\x1f{key}")]
        drawn = plan.principles == "drawn"  # it has had its weight already
        found += [question_of(b.principle, axis=axis, weight=1.0 if drawn else b.weight) for b in candidates]
    return tuple(found)


def asked(
    judge: Judge, constitution: Constitution | None, principles: Principles, axes: Sequence[str], rule: Rule
) -> dict[str, Any]:
    """What a calibration depends on beside the judge: what it is asked, and how the votes become a label.

    `questions` is a hash of the judge's questions with the weights of their principles; critiques play no part.
    """
    if constitution is None or principles == "none":
        named, questions = None, ""
    else:
        named = f"{constitution.name}@{constitution.hash[:12]}"
        put = [
            (
                bound.id,
                bound.weight,
                bound.principle.judge.strip(),
                bound.principle.axis if axes else "",
                *([bound.principle.asks.strip()] if sees_one(judge) else []),
            )
            for bound in _of_axes(constitution, axes)
        ]
        questions = content_hash(sorted(put), length=16)
    return {
        "constitution": named,
        "principles": principles if named else "none",
        "questions": questions,
        "axes": list(axes),
        "rule": rule.panel,
        "need_both": rule.need_both,
    }


def _of_axes(constitution: Constitution, axes: Sequence[str]) -> list[Bound]:
    """The principles that a judge can be asked about, of these axes; of all where none is named."""
    return [bound for bound in constitution.judging if not axes or bound.principle.axis in axes]


def method(plan: Plan) -> Callable[[Group, Generate], Awaitable[Judged]]:
    """Judging as a coroutine over one group. All its questions are asked at once, and share what stands before them."""

    async def judge(group: Group, generate: Generate) -> Judged:
        items: Sequence[Any] = group.comparisons() if plan.judge.unit == "pair" else [group]
        asked = [(item, question) for item in items for question in questions(plan, group.prompt, item.id)]
        votes = await together(plan.judge(item, question, generate) for item, question in asked)
        return Judged(group, tuple(vote for each in votes for vote in each))

    return judge
