"""What GRPO and RLOO share: TRL's trainers with our rewards in place of its reward functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from cai.errors import InputError
from cai.modelfolder import strftime_now
from cai.records import content_hash, messages_from
from cai.training.algorithms._common import finish, tidy
from cai.training.base import Job, Outcome, Reward, TrainingError
from cai.training.data import check_template
from cai.training.models import Lora, check_parent, check_room, load_tokenizer, load_trained, peft_config
from cai.training.watch import WatchConfig
from cai.yamlfile import StrictModel


class OnlineSettings(StrictModel):
    """Settings of both; everything else goes into `trl:`."""

    steps: int = Field(100, ge=1, description="Steps of the optimiser.")
    batch: int = Field(32, ge=1, description="Answers a step and process; a multiple of samples_per_prompt.")
    micro_batch: int = Field(8, ge=1, description="Of these, in one forward pass.")
    samples_per_prompt: int = Field(8, ge=2, description="Answers to one prompt, which are compared with one another.")
    max_new_tokens: int = Field(256, ge=1)
    max_prompt_tokens: int = Field(2048, ge=1, description="A longer prompt is refused before anything is loaded.")
    temperature: float = Field(1.0, gt=0)
    learning_rate: float = Field(1e-5, gt=0)
    beta: float = Field(0.05, ge=0, description="Weight of the KL penalty to the parent.")
    lora: Lora | None = Field(Lora(), description="null: every weight is trained.")
    dtype: Literal["float32", "bfloat16"] = "float32"
    trust_reward_model: bool = Field(False, description="Use a reward model that failed its own report.")
    save_every: int = Field(50, ge=1, description="Steps between checkpoints to resume from.")
    watch: WatchConfig = WatchConfig()

    @model_validator(mode="after")
    def _divides(self) -> OnlineSettings:
        if self.batch % self.samples_per_prompt or self.batch % min(self.micro_batch, self.batch):
            raise ValueError(
                f"batch {self.batch} must be a multiple of samples_per_prompt {self.samples_per_prompt} "
                f"and of micro_batch {self.micro_batch}"
            )
        return self

    def arguments(self) -> dict[str, Any]:
        """TRL's names for them."""
        import torch

        micro = min(self.micro_batch, self.batch)
        return {
            "max_steps": self.steps,
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": self.batch // micro,
            "num_generations": self.samples_per_prompt,
            "max_completion_length": self.max_new_tokens,
            "temperature": self.temperature,
            "learning_rate": self.learning_rate,
            "beta": self.beta,
            "save_steps": self.save_every,
            "gradient_checkpointing": False,
            "bf16": self.dtype == "bfloat16",
            "fp16": False,
            "use_cpu": not torch.cuda.is_available(),
        }


def reward_function(reward: Reward) -> Callable[..., list[float]]:
    """`reward` as TRL calls it: lists of conversations, and of answers as lists of one message.

    Raises:
        TrainingError: a score is not a finite number.
    """

    def score(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        answers = [completion[-1]["content"] for completion in completions]
        scores = reward([messages_from(prompt) for prompt in prompts], answers)
        if len(scores) != len(answers) or not all(math.isfinite(value) for value in scores):
            raise TrainingError(f"the reward {reward.name!r} did not give one finite score for each answer")
        return scores

    score.__name__ = reward.name
    return score


class Passes:
    """TRL's sampler, with an order of the prompts that follows from the seed and the number of the pass.

    TRL's own goes on from the pass before, which a training that is resumed has not made.
    """

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._number = 0

    def set_epoch(self, epoch: int) -> None:
        """Which pass is to come; accelerate's name for it."""
        self._number = epoch

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        if self._sampler.shuffle:
            self._sampler.generator.manual_seed(self._sampler.seed + self._number)
        yield from self._sampler


def resumable(trainer_class: type[Any]) -> type[Any]:
    """One of TRL's online trainers, `tidy`, and in whatever pass it is resumed on the same curve."""

    class Resumable(tidy(trainer_class)):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Passes:
            return Passes(super()._get_train_sampler(dataset))

    Resumable.__name__ = trainer_class.__name__
    return Resumable


def _check_prompts(prompts: int, arguments: Any) -> None:
    """TRL makes answers to so many prompts at once, and leaves out those at the end of a pass that do not fill up.

    Raises:
        InputError: there are not enough for one step.
    """
    asked = arguments.generation_batch_size // arguments.num_generations
    if prompts < asked:
        raise InputError(
            f"{prompts} prompts, and each step takes {asked}: {arguments.generation_batch_size} answers of all "
            f"processes, {arguments.num_generations} to each prompt",
            mend="lower batch, raise samples_per_prompt, or give more prompts",
        )


def train_online(
    job: Job, config: OnlineSettings, trainer_class: type[Any], arguments_class: type[Any], defaults: Mapping[str, Any]
) -> Outcome:
    """Train with one of TRL's online trainers; the same call resumes.

    Raises:
        InputError: a prompt is too long, or there are too few for one step.
    """
    from datasets import Dataset

    from cai.training import runner
    from cai.training.algorithms._watching import Watching
    from cai.training.ppo.rollout import encode

    assert job.reward is not None
    tokenizer = load_tokenizer(job.parent)
    check_template(tokenizer, str(job.parent))
    encoded = encode(job.prompts, tokenizer, longest=config.max_prompt_tokens)
    check_room(job.parent, max(len(one.ids) for one in encoded), config.max_new_tokens)
    digest = content_hash([prompt.id for prompt in job.prompts], getattr(job.reward, "id", job.reward.name))
    arguments = runner.arguments(arguments_class, job, config, {**config.arguments(), **defaults})
    _check_prompts(len(job.prompts), arguments)
    resume = runner.begin(job, config.model_dump(mode="json", exclude={"watch", "trust_reward_model"}), digest)
    tokenizer.padding_side = "left"
    rows = [{"prompt": [turn.row() for turn in prompt.messages]} for prompt in job.prompts]
    trainer = resumable(trainer_class)(
        model=load_trained(
            job.parent, "causal", lora=config.lora, dtype=config.dtype, pad=tokenizer.pad_token_id, seed=job.seed
        ),
        reward_funcs=reward_function(job.reward),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config(config.lora, "causal"),
    )
    # Behind the arguments, which are written as JSON: prompts see the day that they see everywhere.
    trainer.chat_template_kwargs = {**trainer.chat_template_kwargs, "strftime_now": strftime_now}
    watching = Watching(job, config.watch, trainer, tokenizer, total=config.steps)
    metrics = runner.run(job, trainer, resume, watch=watching)
    metrics |= watching.finish()
    data = {"digest": digest, "prompts": len(job.prompts)}
    return finish(job, trainer, tokenizer, config, data, metrics, step=watching.step)


def check(job: Job, config: Any) -> None:
    """What can be known before anything is loaded, for every algorithm that needs a reward.

    Raises:
        InputError: no reward, no prompts, a reward model that its own report calls unusable, or no parent.
    """
    if job.reward is None:
        raise InputError(f"{job.name} needs a reward", mend=f"give the recipe's train.{job.name} a `reward`")
    if not job.prompts:
        raise InputError(f"{job.name} has no prompts to train on", mend="give the recipe prompts that are not held out")
    doubt = getattr(job.reward, "doubt", "")
    if doubt and not config.trust_reward_model:
        raise InputError(
            f"the reward is not fit for use: {doubt}",
            where=job.reward.name,
            mend="train a better one, or set trust_reward_model: true",
        )
    check_parent(job.parent, "causal", config.lora)
