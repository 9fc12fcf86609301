"""What a recipe can say: the shape of the YAML file, with the defaults that work. `cai.config` reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cai.constitution.model import Ident
from cai.faults import BLOCKING, FLAGS
from cai.yamlfile import StrictModel, nearest

ROLES = ("policy", "critic", "reviser", "judge")


class PromptSource(StrictModel):
    """One file or data set of prompts."""

    path: str = Field(description="File or folder.")
    format: str = Field("auto", description="`cai prompts import --help` lists them.")
    fields: tuple[str, ...] = Field((), description="Keys or columns that hold the prompt, joined by a blank line.")
    turns: Literal["first", "all"] | None = Field(None, description="first: only up to the first user turn.")
    tags: tuple[str, ...] = Field((), description="Tags added to every prompt of this source.")
    limit: int | None = Field(None, ge=1, description="Take only the first so many.")
    allow_torn: bool = Field(
        False, description="Take what can be read of a torn or corrupt file; by default that is an error."
    )
    source: str = Field("", description="What rows name as their source; by default `path` as written here.")

    @property
    def label(self) -> str:
        """What stands for the file in the rows' `source`; an absolute path leaves its folders out."""
        return self.source or (Path(self.path).name if Path(self.path).is_absolute() else self.path)


class SamplingConfig(StrictModel):
    """How tokens of one step are drawn."""

    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0 switches the filter off.")


class ReviseConfig(StrictModel):
    """The critique-and-revise loop (Bai et al. 2022, arXiv 2212.08073, section 3)."""

    rounds: int = Field(2, ge=0, le=16, description="Critique-revision pairs a prompt; the paper has 4.")
    principles_per_critique: int = Field(1, ge=1, description="Principles asked together in one critique.")
    critique: bool = Field(True, description="false: revise at once, the paper's no-critique ablation.")
    style: Literal["chat", "base"] = Field(
        "chat", description="base: plain transcripts, for models without chat training."
    )
    few_shot: int | None = Field(None, ge=0, description="Worked examples shown; all of the constitution's by default.")
    unrevised_tags: tuple[str, ...] = Field(
        ("helpful",), description="Prompts with one of these tags are only answered."
    )
    unrevised_samples: int = Field(1, ge=1, description="Answers per such prompt; the paper has 2.")
    retries: int = Field(1, ge=0, description="How often a faulty step is drawn again before it is given up.")
    draft: SamplingConfig = Field(default_factory=SamplingConfig)
    critic: SamplingConfig = Field(default_factory=SamplingConfig)
    revision: SamplingConfig = Field(default_factory=SamplingConfig)


class SftConfig(StrictModel):
    """The SFT data set."""

    revisions: Literal["all", "last"] = Field(
        "all", description="Train on the revisions of all rounds, as the paper, or the last."
    )
    include_unrevised: bool = Field(True, description="Mix in the answers to prompts that are not revised.")
    drop_flags: tuple[str, ...] = Field(
        tuple(flag for flag in FLAGS if flag in BLOCKING),
        description="What else keeps an answer out, beside the flags of faults, which always do: `refusal` and "
        "`boilerplate` are recorded only, unless named here.",
    )
    test_fraction: float = Field(0.05, ge=0, lt=1, description="Share of prompts held out, split by prompt.")
    system_prompt: bool = Field(
        False, description="Put the system prompt into the rows; training then puts it before the run's prompts."
    )
    license: str = Field("", description="Licence of the data set, for its card (a Hugging Face licence id).")
    prompt_licenses: tuple[str, ...] = Field((), description="Sources and licences of the prompts, for the card.")
    language: tuple[str, ...] = Field(("en",), description="For the card.")
    title: str = Field("", description="For the card; the run's name by default.")
    formats: tuple[Literal["hf_cai"], ...] = Field(
        (), description="Beside our own columns; hf_cai: init_prompt ... revision_response, in `sft_hf_cai`."
    )

    @field_validator("drop_flags")
    @classmethod
    def _added(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for flag in value:
            if flag not in FLAGS:
                raise ValueError(f"no flag {flag!r}{nearest(flag, list(FLAGS))}; flags: {', '.join(FLAGS)}")
        return tuple(flag for flag in FLAGS if flag in BLOCKING or flag in value)


class SampleSource(SamplingConfig):
    """One model at one temperature."""

    model: str = Field("policy", description="Role or name of the model.")
    count: int = Field(4, ge=1, le=16, description="Answers per prompt.")
    name: str = Field(
        "", description="What the answers carry; by default the model's role, numbered if it comes twice."
    )


class SampleConfig(StrictModel):
    """Answers to compare."""

    sources: tuple[SampleSource, ...] = Field(
        (SampleSource(),), description="Models, checkpoints and temperatures; together at most 16 answers a prompt."
    )
    include: tuple[Literal["draft", "last_revision", "revisions"], ...] = Field(
        (), description="What the revise stage made of the same prompt joins the comparison."
    )
    near_duplicate: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Answers that share this much of their word pairs (Dice), and all numbers, signs and negations, "
        "count as the same.",
    )

    @model_validator(mode="after")
    def _not_too_many(self) -> SampleConfig:
        total = sum(source.count for source in self.sources)
        if total > 16:
            raise ValueError(f"{total} answers a prompt; at most 16 can be compared")
        return self


class JudgeConfig(StrictModel):
    """The AI judge (Bai et al. 2022, arXiv 2212.08073, section 4.1)."""

    method: str = Field("logprob", description="A file of cai/judges: logprob, cot, rating, listwise, ...")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the method.")
    principles: Literal["drawn", "all", "none"] = Field(
        "drawn",
        description="drawn: one principle a comparison, as the paper (one a group, for methods that judge groups); "
        "all, averaged; none: a general question.",
    )
    axes: tuple[Ident, ...] = Field(
        (), description="Judge each axis by itself; empty: one verdict over all principles."
    )

    @model_validator(mode="after")
    def _asks_by_axis(self) -> JudgeConfig:
        if self.principles == "none" and self.axes:
            raise ValueError("without principles every axis would be asked the same question; leave `axes` out")
        return self


class PreferencesConfig(StrictModel):
    """From votes to the preference data set; split by prompt as the SFT data is (`sft.test_fraction`)."""

    need_both: bool = Field(True, description="A question whose verdict failed in one order counts as not answered.")
    calibration: str = Field(
        "",
        description="What `cai eval judge --calibrate` wrote for it: a name (calibrations/NAME.json) or a file.",
    )
    tie_band: float = Field(0.0, ge=0, lt=0.5, description="p this close to 0.5 is called a tie.")
    ties: Literal["keep", "drop"] = Field(
        "drop", description="keep: whatever their margin; only for losses that use `p` (0.5 for a reward model)."
    )
    min_margin: float = Field(0.0, ge=0, le=1, description="Least 2p - 1.")
    max_margin: float = Field(1.0, ge=0, le=1)
    min_agreement: float = Field(0.0, ge=0, le=1, description="Least share of questions on the side of `chosen`.")
    max_length_ratio: float | None = Field(None, ge=1, description="Longer answer by shorter one, in characters.")
    max_length_difference: int | None = Field(None, ge=0, description="Words of one answer more than the other.")
    axes: tuple[Ident, ...] = Field((), description="Axes taken; empty: all that were judged.")
    balance: Literal["none", "length", "principle"] = Field(
        "none", description="length: as many rows whose chosen answer is the longer one as the shorter one."
    )
    cap: int | None = Field(None, ge=1, description="With balance: principle, most rows of one principle.")
    formats: tuple[str, ...] = Field(("trl",), description="`cai export --help` lists them.")


class RetryConfig(StrictModel):
    """What happens when a server fails."""

    attempts: int = Field(
        6, ge=1, description="Tries a request, with exponential backoff, before its row is quarantined."
    )
    first_seconds: float = Field(0.5, gt=0)
    longest_seconds: float = Field(30.0, gt=0)
    give_up_after: int = Field(
        20,
        ge=1,
        description="Failed requests in a row after which a plain prompt is asked; unanswered, it stops the run, "
        "resumable.",
    )


class PairsFrom(StrictModel):
    """One part of the mixture of preferences that a model is trained on."""

    name: str = Field("", description="Stands in reports; by default the path's last part.")
    path: str = Field("", description="Folder of `train` and `test`, or a file; blank: this run's preferences.")
    axes: tuple[str, ...] = Field((), description="Axes taken; empty: all.")
    sources: tuple[str, ...] = Field(
        (), description="ai, human, human+ai, label (of files that do not say whose labels they are); empty: all."
    )
    weight: float = Field(1.0, gt=0, description="Of each of its rows in the loss.")


class TrainConfig(StrictModel):
    """How one algorithm is trained; see `cai train ALGORITHM --settings` for what `settings` can say."""

    parent: str = Field("", description="Folder of the model to train; blank: what this run trained before, or policy.")
    data: str = Field("", description="SFT data instead of this run's: a folder of train.jsonl and test.jsonl.")
    pairs: tuple[PairsFrom, ...] = Field(
        (), description="The mixture; empty: this run's preferences, merged if merged."
    )
    rewards: tuple[dict[str, Any], ...] = Field(
        (), description="For RL: {kind: model | rating | judge | rules, weight, ...}; empty: this run's reward model."
    )
    gold: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Scores that are only watched, by name, as in `rewards`."
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="The algorithm's own.")
    trl: dict[str, Any] = Field(default_factory=dict, description="For TRL's config object, as it is.")

    @field_validator("rewards", "gold")
    @classmethod
    def _weighs(cls, value: Any) -> Any:
        for score in value.values() if isinstance(value, dict) else value:
            weight = score.get("weight", 1.0)
            if isinstance(weight, int | float) and (weight == 0 or not math.isfinite(weight)):
                raise ValueError(f"a weight of {weight} is none; give a finite number other than 0")
        return value


class Recipe(StrictModel):
    """One run."""

    name: Ident = Field(description="The run's folder is runs/<name>.")
    seed: int = Field(0, ge=0, description="Of principle draws, sampling and splits.")
    constitution: str = Field(
        "default",
        description="Path of a .yaml file; or a name: constitution/NAME.yaml beside the recipe, then in the current "
        "folder, then the one shipped.",
    )
    system_prompt: str | None = Field(None, description="Instead of the constitution's own; blank: none.")
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    models: dict[str, Any] = Field(description="By role: policy, critic, reviser; a role may name another role.")
    train: dict[str, TrainConfig] = Field(
        default_factory=dict, description="By algorithm: sft, rm, dpo, ppo, grpo, rloo."
    )
    rows_in_flight: int = Field(0, ge=0, description="Rows worked on at once; 0 chooses from the backends' seats.")
    reuse: tuple[str, ...] = Field((), description="Earlier runs whose completions are used where requests are equal.")
    retry: RetryConfig = Field(default_factory=RetryConfig)
    revise: ReviseConfig = Field(default_factory=ReviseConfig)
    sft: SftConfig = Field(default_factory=SftConfig)
    sample: SampleConfig = Field(default_factory=SampleConfig)
    judge: JudgeConfig | None = Field(
        None, validate_default=False, description="Without it, `cai run` ends with the SFT data."
    )
    preferences: PreferencesConfig = Field(default_factory=PreferencesConfig)

    @field_validator("system_prompt", mode="before")
    @classmethod
    def _blank_is_none(cls, value: Any) -> Any:
        """Left out it is the constitution's; a key that is there and blank means that there is none."""
        return "" if value is None else value

    @field_validator("judge", mode="before")
    @classmethod
    def _not_blank(cls, value: Any) -> Any:
        """Left out there is no judge; what a block that is there and blank means, nobody can tell."""
        if value is None:
            raise ValueError("is blank; `judge: {}` takes the defaults, and without a judge the key is left out")
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """What a model can be called: the roles, and the names that samples, judges or rewards ask for."""
        asked = [source.model for source in self.sample.sources]
        judges = models_named(self.judge.options if self.judge else {})
        scores = [score for block in self.train.values() for score in (*block.rewards, *block.gold.values())]
        backends = [score["backend"] for score in scores if isinstance(score.get("backend"), str)]
        return tuple(dict.fromkeys([*ROLES, *asked, *judges, *backends]))


def models_named(options: Any) -> list[str]:
    """Values of the key `model`, however deep, in a judge's options."""
    if isinstance(options, Mapping):
        own = [options["model"]] if isinstance(options.get("model"), str) else []
        return own + [name for value in options.values() for name in models_named(value)]
    return [name for value in options for name in models_named(value)] if isinstance(options, list | tuple) else []
