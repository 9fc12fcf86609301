"""What a recipe can say of PPO."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from cai.training.watch import WatchConfig
from cai.yamlfile import StrictModel


class KL(StrictModel):
    """The penalty for leaving the reference."""

    coefficient: float = Field(0.05, ge=0, description="Reward per nat, at first.")
    target: float | None = Field(None, gt=0, description="Nats per answer that it is adapted to; none: it stays.")
    horizon: int = Field(10_000, gt=0, description="Samples over which it is adapted.")
    estimator: Literal["k1", "k3"] = Field("k1", description="See `cai.training.ppo.kl`.")


class Lora(StrictModel):
    """Adapters: policy, reference and value function then share one base model in memory."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    targets: str | tuple[str, ...] = Field("all-linear", description="Modules, as in peft's target_modules.")


class MissingEos(StrictModel):
    """What becomes of the score of an answer that the token limit cut off."""

    how: Literal["penalty", "score", "ignore"] = Field(
        "penalty", description="penalty: `value` is taken off; score: `value` replaces the score; ignore: nothing."
    )
    value: float = 1.0


class Config(StrictModel):
    """Options of PPO; the defaults are for a language model of any size with LoRA."""

    updates: int = Field(100, ge=1, description="Rollout and optimisation, so many times.")
    batch: int = Field(64, ge=1, description="Answers per update.")
    samples_per_prompt: int = Field(1, ge=1, description="Of these, answers to one prompt.")
    minibatches: int = Field(4, ge=1, description="Steps of the optimiser per epoch.")
    micro_batch: int = Field(
        8, ge=1, description="Rows in one forward and backward pass; changes memory, not the result."
    )
    epochs: int = Field(4, ge=1, description="Passes over the answers of an update.")

    max_new_tokens: int = Field(256, ge=1)
    max_prompt_tokens: int = Field(2048, ge=1, description="A longer prompt is refused before anything is loaded.")
    temperature: float = Field(
        1.0, gt=0, description="Of sampling; the policy that is trained is the one that is sampled."
    )
    missing_eos: MissingEos = MissingEos()

    learning_rate: float = Field(1e-5, gt=0)
    value_learning_rate: float | None = Field(None, gt=0, description="None: the same.")
    warmup: int = Field(0, ge=0, description="Updates over which the learning rate rises from 0.")
    schedule: Literal["constant", "linear"] = Field("constant", description="linear: falls to 0 at the end.")
    max_grad_norm: float = Field(1.0, gt=0)
    gamma: float = Field(1.0, ge=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    clip: float = Field(0.2, gt=0)
    value_clip: float | None = Field(0.2, gt=0)
    value_coefficient: float = Field(0.1, gt=0, description="Weight of the value loss where both share a trunk.")
    entropy_coefficient: float = Field(0.0, ge=0)
    whiten_rewards: bool = Field(False, description="Scale rewards to variance 1 within an update, mean kept.")
    whiten_advantages: bool = True
    reward_clip: float | None = Field(None, gt=0, description="Scores are held within plus and minus this.")
    stop_epochs_at_kl: float | None = Field(
        None, gt=0, description="End an update's epochs once it has moved this far, in nats per token."
    )
    kl: KL = KL()

    lora: Lora | None = Field(Lora(), description="null: every weight is trained, and there are full copies.")
    value: Literal["separate", "shared"] = Field(
        "separate", description="separate: an adapter or a copy of its own; shared: a head on the policy's last layer."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of the arithmetic, and of a base under adapters; what is trained is always float32."
    )
    gradient_checkpointing: bool = False

    rollouts: str = Field("transformers", description="What writes the answers: transformers, or vllm.")
    rollout_options: dict[str, Any] = Field(default_factory=dict, description="Its options.")
    logprob_tolerance: float = Field(
        0.1,
        gt=0,
        description="Mean difference from the engine's log-probabilities, in nats per token, that is agreement.",
    )
    ratio_tolerance: float | None = Field(
        None,
        gt=0,
        description="How far from 1 a ratio of the first pass may be; none: 0.001 in float32, 0.1 in bfloat16.",
    )

    trust_reward_model: bool = Field(False, description="Use a reward model that failed its own report.")
    save_every: int = Field(10, ge=1, description="Updates between two states to resume from.")
    report_to: tuple[str, ...] = Field((), description="Trackers by accelerate's names: tensorboard, wandb, ...")
    watch: WatchConfig = WatchConfig()

    @model_validator(mode="after")
    def _divides(self) -> Config:
        if self.batch % self.samples_per_prompt:
            raise ValueError(
                f"batch ({self.batch}) must be a multiple of samples_per_prompt ({self.samples_per_prompt})"
            )
        if self.batch < self.minibatches:
            raise ValueError(f"{self.minibatches} minibatches of {self.batch} answers: some would be empty")
        return self
