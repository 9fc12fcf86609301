"""Whether a judge tells a principle's own examples apart by its question, and whether the question is what does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cai.constitution.model import Example, Principle
from cai.errors import InputError
from cai.evals.judge import Outcome
from cai.evals.pairs import LabelledPair
from cai.records import Prompt, content_hash
from cai.stages.votestats import VoteTally

TELLS = "tells apart"
ADDS_NOTHING = "adds nothing"
"""The general question tells the examples apart as well. No fault: of easy examples a good judge needs no more."""
SAME = 0.01
"""A principle that moves p(better) by no more than this from the general question's adds nothing to it."""
NOTHING = "does nothing"
OPPOSITE = "opposite"
NO_EXAMPLES = "no examples"
NO_QUESTION = "no question"
NO_VERDICT = "no verdict"
FAULTS = frozenset({NOTHING, OPPOSITE, NO_VERDICT})
"""Words for which `--strict` fails."""


@dataclass(frozen=True)
class Case:
    """One example and what the judge said.

    Attributes:
        p: probability that the better answer is better, by the principle's question, both orders averaged.
        p_without: the same by the judge's general question.
        flips: of the principle's question; None unless both orders have a verdict.
        failures: verdicts that could not be read, or a request that failed, by reason.
    """

    prompt: str
    why: str
    p: float | None
    p_without: float | None
    flips: int | None
    failures: Mapping[str, int]


@dataclass(frozen=True)
class Tested:
    """What became of one principle.

    Attributes:
        verdict: one of the words above.
        right: examples whose better answer is preferred; one at exactly 0.5 is not.
        p, p_without: means over the examples that have both; `difference` is theirs.
    """

    id: str
    title: str
    verdict: str
    examples: int
    judged: int
    right: int
    p: float | None
    p_without: float | None
    difference: float | None
    flips: int
    cases: tuple[Case, ...]

    def row(self) -> dict[str, Any]:
        """JSON object."""
        return asdict(self)


def pair_of(principle: Principle, index: int, example: Example) -> LabelledPair:
    """An example as a labelled pair.

    Raises:
        InputError: its two answers are the same.
    """
    where = f"principle {principle.id}, example {index + 1}"
    if example.better.strip() == example.worse.strip():
        raise InputError("its two answers are the same", where=where)
    prompt = Prompt.make(example.prompt, source=where)
    key = content_hash(principle.id, prompt.id, example.better, example.worse, length=16)
    return LabelledPair(key, prompt, example.better, example.worse, principle.id)


def tested(principle: Principle, found: Sequence[tuple[Example, Outcome, Outcome]], *, margin: float) -> Tested:
    """What the judge's verdicts on a principle's examples come to.

    It `tells apart` where the mean p(better) is at least 0.5 + `margin` and more than half of the examples are right;
    there it `adds nothing` if the general question tells the examples apart as well and the two means differ by no more
    than `SAME`. It is `opposite` where the mean is at most 0.5 - `margin`, and `does nothing` else. A principle seldom
    has more than a few examples: the word says what happened on them, and is no statistic.

    Args:
        found: each example with the outcome by the principle's question, and by the general one.
    """
    cases = tuple(_case(*each) for each in found)
    judged = [case.p for case in cases if case.p is not None]
    both = [(c.p, c.p_without) for c in cases if c.p is not None and c.p_without is not None]
    mean = _mean(judged)
    right = sum(p > 0.5 for p in judged)
    without = _mean([p for _, p in both])
    difference = _mean([p - q for p, q in both])
    if not principle.judge.strip():
        word = NO_QUESTION
    elif not principle.examples:
        word = NO_EXAMPLES
    elif mean is None:
        word = NO_VERDICT
    elif mean >= 0.5 + margin and 2 * right > len(judged):
        as_well = without is not None and without >= 0.5 + margin
        word = ADDS_NOTHING if as_well and difference is not None and abs(difference) <= SAME else TELLS
    else:
        word = OPPOSITE if mean <= 0.5 - margin else NOTHING
    return Tested(
        id=principle.id,
        title=principle.title,
        verdict=word,
        examples=len(principle.examples),
        judged=len(judged),
        right=right,
        p=mean,
        p_without=without,
        difference=difference,
        flips=sum(case.flips or 0 for case in cases),
        cases=cases,
    )


def _case(example: Example, by_principle: Outcome, without: Outcome) -> Case:
    tally = VoteTally()
    tally.add(by_principle.group, by_principle.votes)
    votes = tally.report().overall
    flips = None if votes.flip_rate is None else round(votes.flip_rate * votes.both_orders)
    failures = {**votes.failures, **({by_principle.error: 1} if by_principle.error else {})}
    return Case(example.prompt, example.why, by_principle.p_chosen, without.p_chosen, flips, failures)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
