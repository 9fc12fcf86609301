"""A judge's preference of an answer to a fixed reference answer, under a constitution: P(answer better), from -1 to 1.

The win rate against a reference is what Bai et al. 2022 and Lee et al. 2023 report; as a reward it is graded, since the
judge's probability is kept. Both orders are asked where the method does so. What the votes come to is decided as for
preferences (`cai.stages.prefer`): a question that failed in one of its orders has no verdict, chain of thought is
clamped, and a panel is combined by its rule.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from cai.constitution import Constitution, load_constitution
from cai.constitution.find import find_constitution
from cai.engine import Generate
from cai.errors import InputError
from cai.evals import judge as judging
from cai.judging import Judge, Question
from cai.judging.members import Inner, roles
from cai.judging.prompt import absolute_prompts
from cai.records import Candidate, Group, Messages, Prompt, content_hash, messages_from
from cai.stages.judge import Plan, questions
from cai.stages.prefer import Rule, p_of_a, preferences
from cai.store import given_rows
from cai.training.base import TrainingError
from cai.training.rewards import Ask, Tools
from cai.yamlfile import StrictModel


class Config(StrictModel):
    """Options of the judge reward."""

    backend: str = Field("judge", description="The model that judges, by its name in the recipe.")
    judge: Inner = Field(Inner(method="logprob"), description="The method and its options.")
    references: str = Field(description="JSONL of reference answers: rows with `messages`, the last the assistant's.")
    constitution: str = Field("", description="Name or path; blank: the judge's own general question.")
    principles: Literal["drawn", "all"] = Field("all", description="Asked of each answer: one, drawn, or every one.")
    unread: float | None = Field(
        None, ge=-1, le=1, description="Score of an answer without a verdict; none: training stops."
    )

    @field_validator("judge", mode="before")
    @classmethod
    def _options(cls, value: object) -> object:
        try:
            return Inner.model_validate(value) if isinstance(value, Mapping) else value
        except ValidationError as error:
            raise ValueError(str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")) from error


class Preference:
    """See `cai.training.base.Reward`: 2 P(answer better than the reference) - 1, a tie 0."""

    name = "judge"

    def __init__(
        self,
        config: Config,
        judge: Judge,
        ask: Ask,
        references: Mapping[str, str],
        seed: int,
        model: str = "",
        constitution: Constitution | None = None,
    ) -> None:
        self._config = config
        self._judge = judge
        self._ask = ask
        self._references = dict(references)
        if constitution is not None and not constitution.judging:
            raise InputError("none of its principles has a judge's question", where=f"constitution {constitution.name}")
        self._rule = Rule(panel=getattr(judge, "rule", "mean"))
        self._plan = Plan(constitution, judge, config.principles, (), seed) if constitution else None
        told = {"name": constitution.name, "hash": constitution.hash} if constitution else None
        self.origin = {"model": model, "constitution": told, "options": config.model_dump(mode="json")}
        self.id = content_hash(
            "judge",
            judge.id,
            dataclasses.asdict(self._rule),
            constitution.hash if constitution else "",
            config.principles,
            seed,
            sorted(references.items()),
        )

    def check(self, prompts: Sequence[Messages]) -> None:
        """That there is a reference answer to each of these prompts.

        Raises:
            InputError: there is not.
        """
        missing = [prompt for prompt in map(Prompt.make, prompts) if prompt.id not in self._references]
        if missing:
            begin = " ".join(missing[0].messages[-1].content.split())[:60]
            raise InputError(
                f"{len(missing)} of {len(prompts)} prompts have no reference answer; the first's last turn: {begin!r}",
                where=self._config.references,
                mend="add a row for each prompt that is trained on or watched",
            )

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        return self._ask([partial(self._one, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)])

    async def _one(self, messages: Messages, answer: str, generate: Generate) -> float:
        prompt = Prompt.make(messages)
        reference = self._references.get(prompt.id)
        if reference is None:
            raise TrainingError(
                "there is no reference answer", where=f"prompt {prompt.id}", mend="add it to references"
            )
        if answer == reference:
            return 0.0
        group = Group.make(prompt, [Candidate("answer", answer), Candidate("reference", reference)])
        (pair,) = group.comparisons()
        key = pair.id if self._judge.unit == "pair" else group.id
        asked = questions(self._plan, prompt, key) if self._plan else (Question(),)
        votes = await judging.ask(self._judge, group, asked, generate)
        (found,) = preferences(group, votes, self._rule, axes=("",))
        p = p_of_a(found, pair)
        if p is None:
            if self._config.unread is not None:
                return self._config.unread
            why = next((vote.error for vote in votes if vote.error), "no question")
            raise TrainingError(f"the judge gave no verdict ({why})", where=f"prompt {prompt.id}", mend="set `unread`")
        return 2 * (p if pair.a.id == "answer" else 1 - p) - 1


def read_references(tools: Tools, text: str) -> dict[str, str]:
    """Reference answers by prompt id.

    Raises:
        InputError: a row of another form; names the line.
    """
    path = tools.path(text)
    found = {}
    for number, row in given_rows(path):
        turns = messages_from(row.get("messages"), where=f"{path}:{number}")
        if turns[-1].role != "assistant" or len(turns) < 2:
            raise InputError("the last message must be the assistant's answer", where=f"{path}:{number}")
        found[Prompt.make(turns[:-1], source=f"{path}:{number}").id] = turns[-1].content
    return found


def build(config: Config, tools: Tools) -> Preference:
    """The reward.

    Raises:
        InputError: no such constitution, file or backend.
    """
    options = config.judge.config()
    model = tools.fingerprint(config.backend)
    models = dict.fromkeys(("judge", *roles(options)), model)
    inner = Inner.model_validate(absolute_prompts(config.judge.model_dump(), tools.folder))
    judge = inner.build(models, tools.seed)
    references = read_references(tools, config.references)
    found = find_constitution(config.constitution, tools.folder) if config.constitution else None
    constitution = load_constitution(found) if found else None
    return Preference(config, judge, tools.ask(config.backend), references, tools.seed, model, constitution)
