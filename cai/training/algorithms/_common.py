"""What SFT, reward model and DPO share: their settings, TRL's arguments from them, and how a training ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from cai.training.base import Job, Outcome
from cai.training.lineage import rewards_of, write_lineage
from cai.training.models import Kind, Lora, load_trained, peft_config, save
from cai.yamlfile import StrictModel


class Settings(StrictModel):
    """Settings that every one of them has; everything else goes into `trl:`."""

    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(0, ge=0, description="End after so many steps; 0: after the epochs.")
    batch: int = Field(16, ge=1, description="Elements (conversations, or groups of pairs) a step and process.")
    micro_batch: int = Field(4, ge=1, description="Of these, in one forward pass.")
    learning_rate: float = Field(1e-5, gt=0)
    max_length: int = Field(
        1024, ge=16, description="Tokens of prompt and answer; longer rows are left out and counted."
    )
    lora: Lora | None = Field(None, description="Adapters instead of every weight, merged at the end.")
    dtype: Literal["float32", "bfloat16"] = "float32"
    save_every: int = Field(100, ge=1, description="Steps between checkpoints to resume from.")

    @model_validator(mode="after")
    def _divides(self) -> Settings:
        if self.batch % min(self.micro_batch, self.batch):
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        return self

    def arguments(self) -> dict[str, Any]:
        """TRL's names for them."""
        micro = min(self.micro_batch, self.batch)
        return {
            "num_train_epochs": self.epochs,
            "max_steps": self.max_steps or -1,
            "per_device_train_batch_size": micro,
            "per_device_eval_batch_size": micro,
            "gradient_accumulation_steps": self.batch // micro,
            "learning_rate": self.learning_rate,
            "max_length": self.max_length,
            "save_steps": self.save_every,
            "gradient_checkpointing": False,
            "bf16": self.dtype == "bfloat16",
            "fp16": False,
            "use_cpu": not _accelerated(),
        }


def _accelerated() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def tidy(trainer_class: type[Any]) -> type[Any]:
    """A trainer of TRL's whose checkpoints hold no pickle."""
    from cai.training.trainers import forget_arguments

    class Tidy(trainer_class):  # type: ignore[misc]
        def _save(self, output_dir: str | None = None, state_dict: object = None) -> None:
            super()._save(output_dir, state_dict)
            forget_arguments(output_dir or self.args.output_dir)

    Tidy.__name__ = trainer_class.__name__
    return Tidy


def whole(job: Job, tokenizer: Any, settings: Any) -> Any:
    """The model as it was before training, in one piece, adapters and all: a place for gathered weights."""
    kind: Kind = "reward" if job.name == "rm" else "causal"
    model = load_trained(
        job.parent, kind, lora=settings.lora, dtype=settings.dtype, pad=tokenizer.pad_token_id, seed=job.seed
    )
    if settings.lora is None:
        return model
    from peft import get_peft_model

    return get_peft_model(model, peft_config(settings.lora, kind))


def finish(
    job: Job,
    trainer: Any,
    tokenizer: Any,
    settings: StrictModel,
    data: Mapping[str, Any],
    metrics: dict[str, Any],
    *,
    step: int | None = None,
) -> Outcome:
    """Write the checkpoint (by the main process) with its card and lineage.

    Args:
        step: whose weights these are, where not the last's.
    """
    # Sharded weights are gathered by all processes together; the model that is saved is then made anew from the parent.
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if trainer.accelerator.is_main_process:
        if state is None:
            model = trainer.accelerator.unwrap_model(trainer.model)
        else:
            model = whole(job, tokenizer, settings)
            model.load_state_dict(state)
        save(model, tokenizer, job.checkpoint, parent=job.parent)
        write_lineage(
            job.checkpoint,
            algorithm=job.name,
            parent=job.parent,
            given=job.lineage,
            settings={**settings.model_dump(mode="json"), "trl": dict(job.trl)},
            data=data,
            metrics=metrics,
            rewards=rewards_of(job),
            step=trainer.state.global_step if step is None else step,
        )
    trainer.accelerator.wait_for_everyone()
    return Outcome(job.checkpoint, metrics)
