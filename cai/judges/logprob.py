"""The probability of the two letters in one forward pass, in both orders: the paper's label without chain of thought.

Bai et al. 2022 (arXiv 2212.08073, section 4.1): the label is the normalised log-probability of the options. A small
model prefers a slot (Lee et al. 2023, arXiv 2309.00267, table 12), so by default both orders are asked and kept as two
votes. Cheapest of all judges: nothing is generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from cai.engine import Generate
from cai.errors import PromptRefused
from cai.judging import Question, Verdict, both_orders, judge_id, refused, score, vote
from cai.judging.prompt import PromptFile, load_prompt
from cai.judging.quoting import PAIR_SLOTS, pair_slots
from cai.records import Comparison, Vote
from cai.scheduler import together
from cai.yamlfile import StrictModel


class Config(StrictModel):
    """Options of the log-probability judge."""

    model: str = Field("judge", description="Role of the model that judges.")
    prompt: str = Field("pair", description="Prompt file, by name or path.")
    orders: Literal["both", "one"] = Field("both", description="Ask in both orders, or only in the pair's own.")
    min_mass: float = Field(
        0.2, ge=0, le=1, description="Less probability than this on the letters together is no verdict."
    )


@dataclass(frozen=True)
class Logprob:
    """See `cai.judging.Judge`."""

    config: Config
    prompt: PromptFile
    id: str
    name: str = "logprob"
    unit: str = "pair"

    @property
    def kind(self) -> str:
        return self.id  # it draws nothing

    async def __call__(self, item: Comparison, question: Question, generate: Generate) -> tuple[Vote, ...]:
        shown = both_orders(item, self.config.orders)
        verdicts = await together(self._ask(each, question, generate) for each in shown)
        return tuple(vote(each, told, self, question) for each, told in zip(shown, verdicts, strict=True))

    async def _ask(self, shown: Comparison, question: Question, generate: Generate) -> Verdict:
        messages = self.prompt.messages(pair_slots(shown, question.text or self.prompt.question))
        try:
            scored = await score(messages, self.prompt.choices, generate, model=self.config.model)
        except PromptRefused as error:
            return Verdict(None, raw={"detail": str(error)}, error=refused(error))
        raw, fault = scored.raw(), scored.fault(self.config.min_mass)
        if fault:
            return Verdict(None, mass=scored.mass, raw=raw, error=fault)
        tie = scored.p[2] if len(scored.p) > 2 else 0.0
        return Verdict(scored.p[0], tie, scored.mass, raw)


def build(config: Config, *, models: Mapping[str, str], seed: int) -> Logprob:
    """The judge.

    Args:
        models: fingerprints by role.
        seed: of the run; this judge draws nothing.

    Raises:
        InputError: the prompt file is missing or wrong.
    """
    prompt = load_prompt(config.prompt)
    prompt.check(f"judge prompt {config.prompt}", PAIR_SLOTS, ("mark",))
    prompt.check_pair(f"judge prompt {config.prompt}")
    return Logprob(config, prompt, judge_id("logprob", config, prompt, [models.get(config.model, "")]))
