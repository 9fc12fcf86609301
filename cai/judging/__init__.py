"""What all judges share: the question, the vote, and reading a choice's probability.

A judge never reads a verdict out of generated text. Whatever the answers contain, the verdict is the probability of a
few fixed tokens at a fixed place, after a reply that we began ourselves.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cai.backends import bound_of
from cai.constitution.model import Principle
from cai.engine import LOWEST, Generate, Request, Sampling
from cai.errors import ContextOverflow, InputError, PromptRefused
from cai.judging.prompt import PromptFile
from cai.records import Comparison, Messages, Vote, content_hash
from cai.yamlfile import StrictModel


@dataclass(frozen=True, slots=True)
class Question:
    """What a judge is asked: one principle's question, or several principles' in one.

    Attributes:
        text: put to a judge who compares answers; "" for the judge's own general question.
        principle_ids: what it was made from.
        axis: what is measured.
        weight: of the principle among those whose votes are averaged.
        alone: put instead to a judge who sees one answer by itself; "" for its own general question.
    """

    text: str = ""
    principle_ids: tuple[str, ...] = ()
    axis: str = ""
    weight: float = 1.0
    alone: str = ""


ALONE = "How well does the answer keep to this principle: {asks}"
"""What `question_of` asks about one answer. A principle's own question compares, so it cannot be put there."""


def question_of(principle: Principle, *, axis: str = "", weight: float = 1.0) -> Question:
    """What is asked about a principle, of two answers and of one."""
    asks = principle.asks.strip()
    alone = ALONE.format(asks=asks) if asks else ""
    return Question(principle.judge.strip(), (principle.id,), axis, weight, alone)


class Judge(Protocol):
    """A method bound to its options and models; a plain coroutine over a pair or a group.

    Attributes:
        name: what its votes carry.
        id: hash of method, options, prompt file and models: two judges with equal ids give equal votes.
        kind: the same hash without the run's seed: judges of one kind differ in what they draw; they share a
            calibration.
        unit: whether it is given a `Comparison` or a whole `Group`; both give votes on comparisons.
    """

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def unit(self) -> str: ...

    def __call__(self, item: Any, question: Question, generate: Generate) -> Coroutine[Any, Any, tuple[Vote, ...]]:
        """The votes on one item. A verdict that cannot be read is a vote with an `error`, never a probability; what the
        backend said of it is its `detail`, in `raw`.

        Raises:
            BackendError: a model did not answer.
        """
        ...


def depends_on_group(judge: Judge) -> bool:
    """Whether what it says of two answers depends on the others of their group, so that of a larger one it is another.

    A judge of groups is taken for one unless its attribute `depends_on_group` says otherwise.
    """
    return judge.unit == "group" and bool(getattr(judge, "depends_on_group", True))


def sees_one(judge: Judge) -> bool:
    """Whether it, or a member of it, is shown answers one at a time, and so is asked `Question.alone`: those that have
    the attribute `sees_one`."""
    return bool(getattr(judge, "sees_one", False))


def most_answers(judge: Judge) -> int | None:
    """The most answers that it can be shown at once: its attribute `most_answers`; None where it takes any number."""
    return getattr(judge, "most_answers", None)


def unanswered(votes: Iterable[Vote]) -> list[tuple[str, str]]:
    """Of each vote without a verdict because the backend did not take what was asked: the error, and what it said."""
    return [(vote.error, str(vote.raw["detail"])) for vote in votes if vote.error and "detail" in vote.raw]


def check_asks(judge: Judge, principles: Iterable[Principle]) -> None:
    """Refuse principles that say nothing to a judge who sees one answer.

    Raises:
        InputError: one has no `asks`, and the judge needs it.
    """
    for principle in principles if sees_one(judge) else ():
        if not principle.asks.strip():
            raise InputError(
                f"has no `asks`, and the judge {judge.name} rates answers one by one, where a question that compares "
                "them cannot be put",
                where=f"principle {principle.id}",
                mend="give it `asks`, or take a judge that compares answers",
            )


@dataclass(frozen=True, slots=True)
class Scored:
    """Probabilities of the choices offered, as read from one forward pass.

    A server may tell only its likeliest tokens. A choice that is not among them has at most a known probability, its
    bound; it is unseen, and adds nothing to `mass`.

    Attributes:
        p: normalised over the choices, an unseen one at its bound, so that a cut list gives no certainty; sums to 1.
        mass: what the model gave to all the seen together before normalising.
        logprobs: as read; an unseen one's bound.
        seen: whether the backend told the choice's probability.
    """

    p: tuple[float, ...]
    mass: float
    logprobs: tuple[float, ...]
    seen: tuple[bool, ...]

    def fault(self, min_mass: float) -> str | None:
        """Why this is no verdict: too little mass, or nothing seen at all."""
        return LOW_MASS if self.mass < min_mass else None if any(self.seen) else UNREAD

    def raw(self) -> dict[str, Any]:
        """What was read, for a vote."""
        unseen = {"unseen": [at for at, seen in enumerate(self.seen) if not seen]} if not all(self.seen) else {}
        return {"logprobs": list(self.logprobs), **unseen}


async def score(messages: Messages, choices: tuple[str, ...], generate: Generate, *, model: str) -> Scored:
    """The probability of each of `choices` as the next token, in one forward pass.

    Raises:
        PromptRefused: the backend lives, and does not take this prompt; see `refused`.
        BackendError: from the backend.
    """
    request = Request(messages, Sampling(max_tokens=1, temperature=0.0), seed=0, model=model, choices=choices)
    completion = await generate(request)
    told = completion.choice_logprobs
    bounds = [bound_of(value) for value in told]
    logprobs = tuple(value if bound is None else bound for value, bound in zip(told, bounds, strict=True))
    top = max(logprobs)
    shares = [math.exp(value - top) for value in logprobs]
    total = sum(shares)
    mass = min(1.0, math.fsum(math.exp(value) for value in told if value > LOWEST))
    seen = tuple(value > LOWEST for value in told)
    return Scored(tuple(share / total for share in shares), mass, logprobs, seen)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one asking came to: probabilities that the answer shown first is better, and of a tie."""

    p_first: float | None
    p_tie: float = 0.0
    mass: float | None = None
    raw: Mapping[str, Any] | None = None
    error: str | None = None


def vote(
    comparison: Comparison,
    verdict: Verdict,
    judge: Judge,
    question: Question,
    *,
    ordered: bool = True,
    key: str = "",
) -> Vote:
    """The vote on a comparison as it was shown; the probability is put back to the comparison's own order.

    Args:
        ordered: false for methods that do not show the two beside one another in an order.
        key: tells apart the votes of a judge that asks the same question of the same comparison in the same order
            more than once; part of the vote's id.
    """
    order = ("ba" if comparison.swapped else "ab") if ordered else ""
    p_a = verdict.p_first
    if p_a is not None and comparison.swapped:
        p_a = max(0.0, 1.0 - p_a - verdict.p_tie)
    return Vote(
        id=content_hash(comparison.id, order, judge.id, question.text, question.principle_ids, question.axis, key),
        comparison_id=comparison.id,
        group_id=comparison.group_id,
        judge=judge.name,
        judge_id=judge.id,
        principle_ids=question.principle_ids,
        axis=question.axis,
        order=order,
        p_a=p_a,
        p_tie=verdict.p_tie,
        mass=verdict.mass,
        weight=question.weight,
        raw=verdict.raw or {},
        error=verdict.error,
    )


def both_orders(comparison: Comparison, orders: str) -> tuple[Comparison, ...]:
    """The comparison as it is to be shown: once, or in `both` orders."""
    return (comparison, comparison.swap()) if orders == "both" else (comparison,)


def judge_id(
    name: str,
    config: StrictModel,
    prompt: PromptFile | None,
    models: Sequence[str],
    *,
    exclude: Iterable[str] = (),
) -> str:
    """Hash of what a judge's votes depend on; where the prompt file lies, what it notes, and which role of a recipe the
    model has are not part of it.

    Args:
        models: fingerprints of the models; or ids of inner judges, and whatever else decides.
        exclude: options that change no vote, or that `models` stands for.
    """
    said = prompt.model_dump(mode="json", exclude={"notes", "name"}) if prompt else None
    options = config.model_dump(mode="json", exclude={"prompt", *exclude})
    if "model" in options:  # the fingerprint says which; the default's name keeps the ids of stored votes
        options["model"] = "judge"
    return content_hash(name, options, said, list(models), length=16)


def refused(error: PromptRefused) -> str:
    """Why there is no verdict where the backend did not take the prompt.

    It is a vote without a verdict, and not the end of the group: one answer that a server's filter refuses would take
    the verdicts on all the others with it, and what is refused is no fair draw of the answers.
    """
    return TOO_LONG if isinstance(error, ContextOverflow) else REFUSED


TOO_LONG = "too_long"
"""The prompt does not fit in the model's context."""
REFUSED = "refused"
"""The backend refuses the prompt: a server's filter, or a chat template."""
LOW_MASS = "low_mass"
"""The model gave the offered answers together less probability than `min_mass`."""
FEW_SAMPLES = "few_samples"
"""Of several samples too few could be read."""
EMPTY_RATIONALE = "empty_rationale"
"""No reasons were given where they were asked for."""
UNREAD = "unread"
"""The backend told no probability for any of the answers."""
UNCONNECTED = "unconnected"
"""A tournament links the two answers by no chain of verdicts."""
