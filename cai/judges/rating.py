"""Each answer alone, rated from 1 to 10 by expectation; also the reward of direct RLAIF.

Lee et al. 2023 (arXiv 2309.00267, section 3.2.2): the score is the sum of i * P(i) over the ratings' normalised
probabilities, scaled to [-1, 1]. Every pair is then decided from the two distributions as if drawn independently:
p_a = P(i > j) + P(i = j) / 2, p_tie = 0. K answers cost K or 2 K forward passes instead of K (K - 1), and no answer
has a place beside another.

"10" is one token for some tokenizers and two for others, and a judge cannot tell which. Both spellings are summed:
P(10) = P("10") + P("1") P("0" | "1") and P(1) = P("1") (1 - P("0" | "1")). Where the backend refuses "10" as more than
one token, the first term is 0; the second pass is left out where P("1") is too small to matter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from cai.engine import Generate
from cai.errors import InputError, PromptRefused
from cai.judging import ALONE, Question, Scored, Verdict, judge_id, refused, score, vote
from cai.judging.prompt import PromptFile, load_prompt
from cai.judging.quoting import conversation, fence, quote
from cai.records import Group, Prompt, Vote
from cai.scheduler import together
from cai.yamlfile import StrictModel

SLOTS = ("conversation", "answer", "question")

TWO_PASS_ABOVE = 1e-3
"""P("1") below which it is not asked whether it begins a "10": the expectation moves by less than 0.01."""


class Config(StrictModel):
    """Options of the rating judge. The scale is the prompt file's `choices`, worst first."""

    model: str = Field("judge", description="Role of the model that judges.")
    prompt: str = Field("rate", description="Prompt file, by name or path; its choices are the ratings 1, 2, ...")
    min_mass: float = Field(
        0.2, ge=0, le=1, description="Less probability than this on the ratings together is no rating."
    )


@dataclass(frozen=True, slots=True)
class Rating:
    """How good one answer is.

    Attributes:
        expectation: the sum of i * P(i), from 1 to the number of ratings n; None where there is no verdict.
        scaled: the same, from -1 to 1: a reward.
        p: probability of each rating, 1 first; sums to 1.
        mass: what the model gave to all ratings together before normalising.
        raw: all that was read.
        error: `low_mass`, `unread`, `too_long` or `refused`; None where there is a verdict.
    """

    expectation: float | None
    scaled: float | None
    p: tuple[float, ...] = ()
    mass: float | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Rater:
    """Rates one answer; make it with `rater`."""

    config: Config
    prompt: PromptFile

    async def score(self, prompt: Prompt, text: str, question: str, generate: Generate) -> Rating:
        """The rating of `text` as an answer to `prompt`: one forward pass or two.

        Args:
            question: about one answer; "" for the prompt file's own.

        Raises:
            BackendError: the model did not answer.
        """
        slots = {
            "conversation": conversation(prompt.messages),
            "answer": quote(text),
            "question": (question or self.prompt.question).strip(),
            "mark": fence([turn.content for turn in prompt.messages], [text]),
        }
        try:
            return await self._read(slots, generate)
        except PromptRefused as error:
            return Rating(None, None, raw={"detail": str(error)}, error=refused(error))

    async def _read(self, slots: Mapping[str, str], generate: Generate) -> Rating:
        choices, messages, role = self.prompt.choices, self.prompt.messages(slots), self.config.model
        two_ways = "10" in choices and "1" in choices
        whole = True
        try:
            first = await score(messages, choices, generate, model=role)
        except InputError:  # "10" has no token of its own; if another choice is at fault, it is raised again
            if not two_ways:
                raise
            whole = False
            first = await score(messages, tuple(c for c in choices if c != "10"), generate, model=role)
        raw: dict[str, Any] = first.raw()
        fault = first.fault(self.config.min_mass)
        # A rating that was not seen counts nothing: the bounds of several together would outweigh one that was.
        seen = [share if known else 0.0 for share, known in zip(first.p, first.seen, strict=True)]
        total = math.fsum(seen) or 1.0
        names = choices if whole else tuple(choice for choice in choices if choice != "10")
        told = {name: share / total for name, share in zip(names, seen, strict=True)}
        if two_ways and told["1"] * first.mass > TWO_PASS_ABOVE:
            second: Scored = await score(
                self.prompt.messages(slots, reply=f"{self.prompt.reply}1"), ("0",), generate, model=role
            )
            raw["logprobs_after_1"] = list(second.logprobs)
            ten = told["1"] * second.mass
            told |= {"1": told["1"] - ten, "10": told.get("10", 0.0) + ten}
        p = tuple(told.get(choice, 0.0) for choice in choices)
        raw["p"] = list(p)
        if fault:
            return Rating(None, None, p, first.mass, raw, fault)
        expectation = math.fsum(rating * share for rating, share in enumerate(p, 1))
        middle, half = (len(p) + 1) / 2, (len(p) - 1) / 2
        return Rating(expectation, (expectation - middle) / half, p, first.mass, raw)


@dataclass(frozen=True)
class RatingJudge:
    """See `cai.judging.Judge`. `raw` of a vote: what was read of its `a` and `b`, and their expectations."""

    rater: Rater
    id: str
    name: str = "rating"
    unit: str = "group"
    depends_on_group: bool = False  # each answer is rated alone
    sees_one: bool = True

    @property
    def kind(self) -> str:
        return self.id  # it draws nothing

    async def __call__(self, item: Group, question: Question, generate: Generate) -> tuple[Vote, ...]:
        put = dataclasses.replace(question, text=question.alone)  # which is also what the vote's id is made of
        ratings = await together(
            self.rater.score(item.prompt, candidate.text, put.text, generate) for candidate in item.candidates
        )
        by_id = {candidate.id: rating for candidate, rating in zip(item.candidates, ratings, strict=True)}
        return tuple(
            vote(each, compare(by_id[each.a.id], by_id[each.b.id]), self, put, ordered=False)
            for each in item.comparisons()
        )


def compare(a: Rating, b: Rating) -> Verdict:
    """The probability that a rating drawn from `a` is above one drawn from `b`, equal ones counting half.

    Equal draws are `equal` in `raw` and no tie: they say that both are about as good as the scale can tell, which is
    likely wherever the judge is sure, and not that neither is better.
    """
    raw: dict[str, Any] = {side: {**each.raw, "expectation": each.expectation} for side, each in (("a", a), ("b", b))}
    masses = [each.mass for each in (a, b) if each.mass is not None]
    mass = min(masses, default=None)
    error = a.error or b.error
    if error:
        detail = (a if a.error else b).raw.get("detail")
        return Verdict(None, mass=mass, raw=raw | ({"detail": detail} if detail else {}), error=error)
    above = math.fsum(share * math.fsum(b.p[:index]) for index, share in enumerate(a.p))
    equal = math.fsum(one * other for one, other in zip(a.p, b.p, strict=True))
    return Verdict(min(above + equal / 2, 1.0), 0.0, mass, raw | {"equal": equal})


def rater(config: Config) -> Rater:
    """The rater alone, for rewards.

    Raises:
        InputError: the prompt file is missing or wrong.
    """
    prompt = load_prompt(config.prompt)
    prompt.check(f"judge prompt {config.prompt}", SLOTS, ("mark",))
    return Rater(config, prompt)


def build(config: Config, *, models: Mapping[str, str], seed: int) -> RatingJudge:
    """The judge.

    Args:
        models: fingerprints by role.
        seed: of the run; this judge draws nothing.

    Raises:
        InputError: the prompt file is missing or wrong.
    """
    made = rater(config)
    return RatingJudge(made, judge_id("rating", config, made.prompt, [models.get(config.model, ""), ALONE]))
