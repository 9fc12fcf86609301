"""Reasons first, then the letters: the paper's label with chain of thought.

Bai et al. 2022 (arXiv 2212.08073, section 4.1): the model writes its reasons, and the letters' probabilities are read
behind them. Those are over-confident, since the reasons have settled the matter, so they are clamped to 40-60 %, which
made training stable there; averaging 5 samples helped slightly. The reasons are text that a model wrote after reading
untrusted answers: they are quoted like an answer, and nothing is ever read out of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cai.engine import Generate, Request, Sampling
from cai.errors import InputError, PromptRefused
from cai.judging import EMPTY_RATIONALE, FEW_SAMPLES, Question, Verdict, both_orders, judge_id, refused, score, vote
from cai.judging.prompt import PromptFile, load_prompt
from cai.judging.quoting import PAIR_SLOTS, pair_slots, quote
from cai.records import Comparison, Vote, content_hash
from cai.scheduler import together
from cai.yamlfile import StrictModel


class Config(StrictModel):
    """Options of the judge that gives reasons."""

    model: str = Field("judge", description="Role of the model that judges.")
    prompt: str = Field("cot", description="Prompt file, by name or path.")
    orders: Literal["both", "one"] = Field("both", description="Ask in both orders, or only in the pair's own.")
    samples: int = Field(1, ge=1, le=64, description="Rationales an order; their verdicts are averaged. The paper: 5.")
    temperature: float = Field(0.7, ge=0, description="Of the rationale.")
    top_p: float = Field(1.0, gt=0, le=1, description="Of the rationale.")
    max_tokens: int = Field(256, ge=1, description="Of the rationale; a longer one is cut off, and still used.")
    clamp: tuple[float, float] | None = Field(
        (0.4, 0.6), description="Range of the soft label, after averaging; null leaves it as it was read."
    )
    min_read: float = Field(
        0.0, ge=0, le=1, description="Least share of the samples that must be read; below it there is no verdict."
    )
    min_mass: float = Field(
        0.2, ge=0, le=1, description="Less probability than this on the letters together is no verdict."
    )

    @field_validator("clamp", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and any(isinstance(end, bool) for end in value):
            raise ValueError("a truth value is no number")  # [false, true] would switch it off
        return value

    @field_validator("clamp")
    @classmethod
    def _symmetric(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        # Any other range would prefer a slot.
        if value is not None and not (0 <= value[0] <= 0.5 and math.isclose(value[0], 1 - value[1])):
            raise ValueError("give a range around 0.5, such as [0.4, 0.6]")
        return value

    @model_validator(mode="after")
    def _drawn(self) -> Config:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("at temperature 0 all samples are the same one; set samples to 1 or raise temperature")
        return self


@dataclass(frozen=True)
class Cot:
    """See `cai.judging.Judge`.

    `raw` of a vote: `samples`, one after another with seed, rationale, log-probabilities and what went wrong; `p`, the
    letters' mean probabilities before clamping, over the samples that were read. Both are in the order in which the
    answers were shown. Samples that were not read are counted in the statistics (`sample_failures`).
    """

    config: Config
    prompt: PromptFile
    id: str
    kind: str
    seed: int
    name: str = "cot"
    unit: str = "pair"

    async def __call__(self, item: Comparison, question: Question, generate: Generate) -> tuple[Vote, ...]:
        shown = both_orders(item, self.config.orders)
        verdicts = await together(self._ask(each, question, generate) for each in shown)
        return tuple(vote(each, told, self, question) for each, told in zip(shown, verdicts, strict=True))

    async def _ask(self, shown: Comparison, question: Question, generate: Generate) -> Verdict:
        asked = question.text or self.prompt.question
        slots = pair_slots(shown, asked)
        order = "ba" if shown.swapped else "ab"
        seeds = [
            # 31 bits are what every backend takes.
            int(content_hash(self.seed, shown.id, order, asked, sample, length=8), 16) & 0x7FFFFFFF
            for sample in range(self.config.samples)
        ]
        samples = await together(self._sample(slots, seed, generate) for seed in seeds)
        raw: dict[str, Any] = {"samples": samples}
        details = [sample["detail"] for sample in samples if "detail" in sample]
        if details:
            raw["detail"] = details[0]
        masses = [sample["mass"] for sample in samples if sample["mass"] is not None]
        mass = min(masses, default=None)
        read = [sample["p"] for sample in samples if sample["error"] is None]
        if not read:
            return Verdict(None, mass=mass, raw=raw, error=samples[0]["error"])
        if len(read) < self.config.min_read * len(samples):
            return Verdict(None, mass=mass, raw=raw, error=FEW_SAMPLES)
        p = [math.fsum(column) / len(read) for column in zip(*read, strict=True)]
        raw["p"] = p
        if self.config.clamp is not None:
            raw["clamp"] = list(self.config.clamp)
        tie = p[2] if len(p) > 2 else 0.0
        return Verdict(p[0], tie, mass, raw)

    async def _sample(self, slots: Mapping[str, str], seed: int, generate: Generate) -> dict[str, Any]:
        """One rationale and the verdict behind it; `error` says why there is none."""
        sample: dict[str, Any] = {"seed": seed, "rationale": None, "logprobs": [], "p": [], "mass": None, "error": None}
        config = self.config
        sampling = Sampling(max_tokens=config.max_tokens, temperature=config.temperature, top_p=config.top_p)
        opening = self.prompt.messages(slots, reply=self.prompt.reason)
        try:
            written = await generate(Request(opening, sampling, seed, model=config.model))
            sample |= {"rationale": written.text, "finish_reason": written.finish_reason}
            reasons = quote(written.text)
            if not reasons:
                return sample | {"error": EMPTY_RATIONALE}
            begun = self.prompt.reason
            blank = " " if begun and not begun[-1].isspace() else ""
            reply = f"{begun}{blank}{reasons}{self.prompt.verdict}"
            scored = await score(
                self.prompt.messages(slots, reply=reply), self.prompt.choices, generate, model=config.model
            )
        except PromptRefused as error:
            return sample | {"error": refused(error), "detail": str(error)}
        return (
            sample | scored.raw() | {"p": list(scored.p), "mass": scored.mass, "error": scored.fault(config.min_mass)}
        )


def build(config: Config, *, models: Mapping[str, str], seed: int) -> Cot:
    """The judge.

    Args:
        models: fingerprints by role.
        seed: of the run; the rationales' seeds are drawn from it, so it is part of the judge's id.

    Raises:
        InputError: the prompt file is missing or wrong.
    """
    prompt, where = load_prompt(config.prompt), f"judge prompt {config.prompt}"
    prompt.check(where, PAIR_SLOTS, ("mark",))
    prompt.check_pair(where)
    if not prompt.verdict.strip():
        raise InputError("it needs `verdict`, the text between the reasons and the letter", where=where)
    model = models.get(config.model, "")
    kind = judge_id("cot", config, prompt, [model])
    return Cot(config, prompt, judge_id("cot", config, prompt, [model, f"seed {seed}"]), kind, seed)
