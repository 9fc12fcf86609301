"""Direct RLAIF: a judge's rating of each answer, by expectation over 1 to 10, scaled to [-1, 1].

Lee et al. 2023 (arXiv 2309.00267, section 3.2.2). No reward model is trained, so none can be stale or fooled in its
place; each answer costs one or two forward passes of the judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import Field

from cai.engine import Generate
from cai.judges import rating
from cai.judging import judge_id
from cai.judging.prompt import absolute_prompts
from cai.records import Messages, Prompt
from cai.training.base import TrainingError
from cai.training.rewards import Ask, Tools
from cai.yamlfile import StrictModel


class Config(StrictModel):
    """Options of the rating reward."""

    backend: str = Field("judge", description="The model that rates, by its name in the recipe.")
    prompt: str = Field("rate", description="Prompt file, by name or path; its choices are the ratings.")
    question: str = Field("", description="What is asked; blank: the prompt file's own question.")
    min_mass: float = Field(0.2, ge=0, le=1, description="Less probability than this on the ratings is no rating.")
    unread: float | None = Field(
        None, ge=-1, le=1, description="Score of an answer that the judge could not rate; none: training stops."
    )


class Rating:
    """See `cai.training.base.Reward`."""

    name = "rating"

    def __init__(self, config: Config, rater: rating.Rater, ask: Ask, fingerprint: str) -> None:
        self._config = config
        self._ask = ask
        self._rater = rater
        question = config.model_copy(update={"question": config.question or rater.prompt.question})
        self.id = judge_id("rating reward", question, rater.prompt, [fingerprint], exclude=("backend",))
        found = ("backend", "min_mass", "unread")
        self.measure = judge_id("rating reward", question, rater.prompt, [fingerprint], exclude=found)
        self.origin = {"model": fingerprint, "options": config.model_dump(mode="json")}

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        told = self._ask([partial(self._one, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)])
        scores = []
        for prompt, found in zip(prompts, told, strict=True):
            score = self._config.unread if found.scaled is None else found.scaled
            if score is None:
                raise TrainingError(
                    f"the judge gave no rating ({found.error})",
                    where=f"prompt {Prompt.make(prompt).id}",
                    mend="lower min_mass, use a better judge, or set `unread` to a score for such answers",
                )
            scores.append(float(score))
        return scores

    async def _one(self, prompt: Messages, answer: str, generate: Generate) -> Any:
        return await self._rater.score(Prompt.make(prompt), answer, self._config.question, generate)


def build(config: Config, tools: Tools) -> Rating:
    """The reward.

    Raises:
        InputError: no such prompt file, or no such backend.
    """
    options = absolute_prompts({"prompt": config.prompt, "min_mass": config.min_mass}, tools.folder)
    rater = rating.rater(rating.Config.model_validate(options))
    return Rating(config, rater, tools.ask(config.backend), tools.fingerprint(config.backend))
