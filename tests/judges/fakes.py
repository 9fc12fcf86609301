"""Models for judges' tests that do what a test says, and remember what they were asked."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from hypothesis import settings

from cai import plugins
from cai.engine import LOWEST, Completion, Request
from cai.errors import ContextOverflow, InputError
from cai.judging import Judge
from cai.records import Candidate, Group, Prompt, Vote
from cai.stages.prefer import Rule, preferences, rankings

Result = TypeVar("Result")

PROPERTY = settings(deadline=None, max_examples=40)
"""Of properties that run a judge: its first call loads files, so times say nothing."""

LEAST: dict[str, dict[str, Any]] = {
    "cot": {},
    "listwise": {},
    "logprob": {},
    "panel": {"members": [{"method": "logprob"}, {"method": "rating"}]},
    "rating": {},
    "tournament": {},
}
"""The least that each judge can be configured with; a new judge adds a line."""


def run(asked: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(asked)


def judge(method: str, *, seed: int = 7, models: Mapping[str, str] | None = None, **options: Any) -> Judge:
    module = plugins.load("cai.judges", method)
    made: Judge = module.build(module.Config(**options), models=models or {"judge": "model@1"}, seed=seed)
    return made


def group(*texts: str, prompt: Prompt | str = "How do I keep bread fresh?") -> Group:
    asked = Prompt.make(prompt) if isinstance(prompt, str) else prompt
    return Group.make(asked, [Candidate(f"id{index}", text) for index, text in enumerate(texts)])


def ranked(of: Group, votes: Sequence[Vote]) -> tuple[str, ...]:
    """Ids of the answers, the best first, as votes of one axis come to it."""
    (found,) = rankings(of, votes, preferences(of, votes, Rule())).values()
    return found


ANSWER = re.compile(r"<answer(?: \w)? (?P<mark>[0-9a-f]{6})>\n(?P<text>.*?)\n</answer(?: \w)? (?P=mark)>", re.DOTALL)


class Fake:
    """Scores the choices by `share(texts, index)`: of the answers shown, what the one in place `index` gets.

    With one answer shown, the choices are ratings and `ratings(text)` gives the share of each, 1 first, the rest 0.

    Args:
        mass: probability of all choices together.
        write: the text that is generated, where that is asked.
        one_token_ten: whether "10" is a choice; if not, it is refused as real backends do.
        zero: P("0" | "1").
    """

    def __init__(
        self,
        share: Callable[[list[str], int], float] = lambda texts, index: 1.0,
        *,
        ratings: Callable[[str], list[float]] = lambda text: [1.0] * 10,
        mass: float = 0.9,
        write: Callable[[Request], str] = lambda request: " Both are short.",
        one_token_ten: bool = False,
        zero: float = 0.0,
        context: int = 1_000_000,
    ) -> None:
        self.share = share
        self.ratings = ratings
        self.mass = mass
        self.write = write
        self.one_token_ten = one_token_ten
        self.zero = zero
        self.context = context
        self.asked: list[Request] = []

    @property
    def scored(self) -> list[Request]:
        return [request for request in self.asked if request.choices]

    async def __call__(self, request: Request) -> Completion:
        assert not isinstance(request.prompt, str)
        self.asked.append(request)
        if sum(len(message.content) for message in request.prompt) > self.context:
            raise ContextOverflow("it does not fit")
        if not request.choices:
            return Completion(self.write(request), "stop", 1, 1)
        if request.choices == ("0",):
            return self._told([self.zero], 1.0 if self.zero else 0.0)
        user = [message.content for message in request.prompt if message.role == "user"][-1]
        texts = [found["text"] for found in ANSWER.finditer(user)]
        if request.choices[0] == "1":
            if "10" in request.choices and not self.one_token_ten:
                raise InputError("the choice '10' is more than one token")
            shares = (self.ratings(texts[0]) + [0.0] * 10)[: len(request.choices)]
        else:
            shares = [self.share(texts, index) for index in range(len(texts))]
            shares += [0.0] * (len(request.choices) - len(shares))
        total = sum(shares)
        return self._told([self.mass * each / total for each in shares], self.mass)

    def _told(self, shares: list[float], mass: float) -> Completion:
        told = tuple(math.log(each) if each else LOWEST for each in shares)
        return Completion("?", "length", 1, 1, choice_logprobs=told)


def by_worth(worth: Mapping[str, float]) -> Callable[[list[str], int], float]:
    """Letters by what stands behind them only."""
    return lambda texts, index: worth[texts[index]]
